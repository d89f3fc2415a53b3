package builtin_test

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/sheaf-run/agent/drivers/builtin"
	"github.com/sheaf-run/agent/drivers/plugin"
	"github.com/sheaf-run/agent/sheaf"
)

// The test binary serves plugins the way the agent does.
func TestMain(m *testing.M) {
	if handled, code := builtin.PluginMain(os.Args[1:]); handled {
		os.Exit(code)
	}
	os.Exit(m.Run())
}

func TestEveryDriver(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	schemas := builtin.Schemas()
	for _, name := range builtin.Names() {
		t.Run(name, func(t *testing.T) {
			schema := schemas[name]
			if schema.Driver != name || len(schema.Attributes) == 0 {
				t.Errorf("schema = %+v", schema)
			}
			for i, a := range schema.Attributes {
				if a.Name == "" || a.Kind == "" || a.Doc == "" {
					t.Errorf("attribute %+v is not described", a)
				}
				if slices.ContainsFunc(schema.Attributes[:i], func(b sheaf.ConfigAttribute) bool { return a.Name == b.Name }) {
					t.Errorf("attribute %q stands twice", a.Name)
				}
			}
			d, err := builtin.New(name)
			if err != nil {
				t.Fatal(err)
			}
			if fp, err := d.Fingerprint(t.Context()); err != nil || fp.GetName() != name {
				t.Errorf("fingerprint in this process: %v, %v", fp, err)
			}

			h := plugin.NewHost(plugin.Config{Name: name, Command: []string{self, "plugin", name}, SocketDir: t.TempDir()})
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- h.Run(ctx) }()
			if fp, err := h.Fingerprint(t.Context()); err != nil || fp.GetName() != name {
				t.Errorf("fingerprint by its plugin: %v, %v", fp, err)
			}
			cancel()
			<-ended
		})
	}
}

func TestUnknownDriverListsTheKnown(t *testing.T) {
	_, err := builtin.New("qemu")
	e, ok := errors.AsType[*sheaf.Error](err)
	if !ok || e.Class != sheaf.Invalid || !strings.Contains(e.Msg, `"qemu"`) {
		t.Fatalf("error = %#v", err)
	}
	for _, name := range builtin.Names() {
		if !strings.Contains(e.Hint, name) {
			t.Errorf("hint %q does not list %q", e.Hint, name)
		}
	}
}

func TestPluginMainLeavesOtherCommandsAlone(t *testing.T) {
	for _, args := range [][]string{nil, {"plugin"}, {"job", "run"}, {"exec", "plugin"}} {
		if handled, _ := builtin.PluginMain(args); handled {
			t.Errorf("%q is taken for a plugin", args)
		}
	}
	if handled, code := builtin.PluginMain([]string{"plugin", "no-such-driver"}); !handled || code == 0 {
		t.Errorf("an unknown plugin: handled %v with code %d", handled, code)
	}
}
