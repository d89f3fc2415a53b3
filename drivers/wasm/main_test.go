package wasm

import (
	"os"
	"testing"
	"time"

	"github.com/sheaf-run/agent/drivers"
	"github.com/sheaf-run/agent/drivers/drivertest"
)

// The test binary is also the worker, and with drivertest the plugin.
func TestMain(m *testing.M) {
	if len(os.Args) >= 3 && os.Args[1] == "plugin" && os.Args[2] == "wasm-worker" {
		os.Exit(WorkerMain(os.Args[3:]...))
	}
	if len(os.Args) == 3 && os.Args[1] == "try-confined" {
		tryConfined(os.Args[2])
	}
	if len(os.Args) == 4 && os.Args[1] == "die-busy" {
		dieBusy(os.Args[2], os.Args[3])
	}
	drivertest.Main(m, Name, func() drivers.Driver { return New(Options{}) })
}

// newDriver makes a driver in this process that ends with the test.
func newDriver(t testing.TB, o Options) *Driver {
	t.Helper()
	if o.IdleAfter == 0 {
		o.IdleAfter = time.Minute
	}
	d := New(o).(*Driver)
	t.Cleanup(func() { _ = d.Close() })
	return d
}

// newState is a state directory, below a directory for the mounts of the test.
func newState(t testing.TB) string {
	t.Helper()
	dir := t.TempDir() + "/state"
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}
