package wasm

import (
	"encoding/json"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/sheaf-run/agent/drivers"
	"github.com/sheaf-run/agent/drivers/drivertest"
)

// suiteProgram is the suite's program for wasip1, built once for all tests.
var suiteProgram struct {
	sync.Mutex
	code []byte
}

func goModule(t testing.TB) []byte {
	t.Helper()
	suiteProgram.Lock()
	defer suiteProgram.Unlock()
	if suiteProgram.code == nil {
		code, err := os.ReadFile(drivertest.Build(t, "wasip1", "wasm"))
		if err != nil {
			t.Fatal(err)
		}
		suiteProgram.code = code
	}
	return suiteProgram.code
}

func configOf(t testing.TB, module string, args ...string) []byte {
	t.Helper()
	b, err := json.Marshal(map[string]any{"module": "file://" + module, "args": args})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestConformance(t *testing.T) {
	module := writeFile(t, "program.wasm", goModule(t))
	drivertest.Run(t, drivertest.Subject{
		New: func(t *testing.T) drivers.Driver { return drivertest.Hosted(t, Name) },
		Config: func(t *testing.T, args ...string) []byte {
			return configOf(t, module, args...)
		},
		Bad: map[string][]byte{
			"no module":         []byte(`{}`),
			"a module of a map": []byte(`{"module": {}}`),
			"a relative module": []byte(`{"module": "program.wasm"}`),
			"a missing module":  configOf(t, filepath.Join(t.TempDir(), "none.wasm")),
			"a text file":       configOf(t, writeFile(t, "text.wasm", []byte("hello"))),
		},
		Can: drivertest.Capabilities{Program: true, Mounts: true, Memory: true, Peak: true},
		// A Go program takes milliseconds to start in wazero.
		Short: 300,
	})
}
