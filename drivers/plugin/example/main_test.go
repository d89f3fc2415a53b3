package main

import (
	"encoding/json"
	"strconv"
	"testing"

	"github.com/sheaf-run/agent/drivers"
	"github.com/sheaf-run/agent/drivers/drivertest"
)

func TestMain(m *testing.M) {
	drivertest.Main(m, name, func() drivers.Driver { return &driver{} })
}

// TestConformance: a driver's own test is to say how the suite's verbs are said in its config.
func TestConformance(t *testing.T) {
	drivertest.Run(t, drivertest.Subject{
		New: func(t *testing.T) drivers.Driver { return drivertest.Hosted(t, name) },
		Config: func(t *testing.T, args ...string) []byte {
			c := map[string]any{}
			switch args[0] {
			case "exit":
				code, err := strconv.Atoi(args[1])
				if err != nil {
					t.Fatal(err)
				}
				c["exit"] = code
			case "print":
				c["say"], c["warn"] = args[1], args[2]
			case "sleep":
				c["sleep"] = args[1] + "s"
			default:
				t.Fatalf("the example has no verb %q", args[0])
			}
			b, err := json.Marshal(c)
			if err != nil {
				t.Fatal(err)
			}
			return b
		},
		Bad: map[string][]byte{
			"exit 256":         []byte(`{"exit":256}`),
			"negative sleep":   []byte(`{"sleep":"-1s"}`),
			"unknown argument": []byte(`{"shout":"x"}`),
		},
	})
}
