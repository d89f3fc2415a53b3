package exec_test

import (
	"encoding/json"
	"os"
	"testing"

	"github.com/sheaf-run/agent/drivers"
	"github.com/sheaf-run/agent/drivers/drivertest"
	"github.com/sheaf-run/agent/drivers/exec"
)

func TestMain(m *testing.M) {
	drivertest.Main(m, "exec", func() drivers.Driver { return exec.New() })
}

func config(t testing.TB, command string, args ...string) []byte {
	t.Helper()
	data, err := json.Marshal(map[string]any{"command": command, "args": args})
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// programVariable names the suite's program where it is built already.
const programVariable = "SHEAF_TEST_PROGRAM"

func TestConformance(t *testing.T) {
	program := os.Getenv(programVariable)
	if program == "" {
		program = drivertest.Build(t, "linux", "")
	}
	root := os.Geteuid() == 0
	drivertest.Run(t, drivertest.Subject{
		New:    func(t *testing.T) drivers.Driver { return drivertest.Hosted(t, "exec") },
		Config: func(t *testing.T, args ...string) []byte { return config(t, program, args...) },
		Bad: map[string][]byte{
			"no command":            []byte(`{"args":["x"]}`),
			"args that are no list": []byte(`{"command":"x","args":"y"}`),
			"a NUL byte":            []byte("{\"command\":\"x\\u0000y\"}"),
			"a number":              []byte(`{"command":1}`),
		},
		Can: drivertest.Capabilities{Program: true, Signals: true, Mounts: root, Memory: root, Pids: root, Peak: root},
	})
}
