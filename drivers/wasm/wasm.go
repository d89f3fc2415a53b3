// Package wasm is the task driver for WebAssembly modules of WASI preview 1.
//
// Modules run in wazero, in worker processes apart from the driver. A worker
// runs one execution at a time and is used again for the next; it is killed
// where a module has to be stopped, since checks inside the compiled code would
// make it several times slower. No worker outlives its driver: the kernel kills
// it when the driver's end of a pipe closes.
//
// A guest has no network, no environment but the one it is given, an empty
// standard input, and a file tree (guestfs) that holds its mounts and nothing
// else. Its memory is bounded by memory_bytes, and the worker's own by a limit
// of the process. Modules are compiled once for a node, in a process of their
// own, into a cache that all workers read.
package wasm

import (
	"context"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/sheaf-run/agent/drivers"
	"github.com/sheaf-run/agent/drivers/driverpb"
	"github.com/sheaf-run/agent/sheaf"
)

// Name is the driver's name in a jobspec.
const Name = "wasm"

// Schema is the driver's config block.
var Schema = sheaf.ConfigSchema{
	Driver: Name,
	Attributes: []sheaf.ConfigAttribute{
		{Name: "module", Kind: sheaf.ConfigString, Required: true, URL: true, Doc: "the WebAssembly module, built for WASI preview 1"},
		{Name: "args", Kind: sheaf.ConfigStrings, Doc: "arguments after the program's name, which is the module's file name"},
	},
}

// Options configure the driver. The zero value is what the agent uses.
type Options struct {
	// Worker is the command line that ends in WorkerMain; by default this
	// binary, called with the arguments "plugin" and "wasm-worker".
	Worker []string

	// Lanes is how many workers serve short executions; by default one for each processor.
	// Executions that last get workers beside them.
	Lanes int

	// IdleAfter is the time after which idle workers are ended, all but one;
	// the last is ended after twelve times as long. By default 5 s.
	IdleAfter time.Duration
}

// defaultIdleAfter keeps workers over the pauses between the waves of a run,
// and not much longer: each holds some megabytes.
const defaultIdleAfter = 5 * time.Second

// Driver implements [drivers.Driver].
type Driver struct {
	modules *modules
	pool    *pool
}

var _ drivers.Driver = (*Driver)(nil)

// New makes a driver. It starts no process before there is a module to
// compile; the workers that it keeps are ended by [Driver.Close] or with the process.
func New(o Options) drivers.Driver {
	if len(o.Worker) == 0 {
		// The link names this very binary even after its file was replaced.
		o.Worker = []string{"/proc/self/exe", "plugin", "wasm-worker"}
	}
	if o.Lanes <= 0 {
		o.Lanes = runtime.GOMAXPROCS(0)
	}
	if o.IdleAfter <= 0 {
		o.IdleAfter = defaultIdleAfter
	}
	s := &spawner{command: o.Worker}
	return &Driver{modules: newModules(s), pool: newPool(s, o.Lanes, o.IdleAfter)}
}

// Fingerprint implements [drivers.Driver].
func (d *Driver) Fingerprint(context.Context) (*driverpb.FingerprintResponse, error) {
	return &driverpb.FingerprintResponse{
		Name:    Name,
		Healthy: true,
		Attributes: map[string]string{
			"driver.wasm.runtime": "wazero " + wazeroVersion(),
			"driver.wasm.wasi":    "preview1",
			"driver.wasm.signals": "none",
		},
	}, nil
}

// wazeroVersion is the version that this binary was built with.
func wazeroVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if m.Path == "github.com/tetratelabs/wazero" {
				return m.Version
			}
		}
	}
	return "unknown"
}

// Prepare implements [drivers.Driver]: it copies the module into the state
// directory, checks it and compiles it. Mistakes in the module or the config
// are errors of class sheaf.Invalid, sheaf.TooLarge or sheaf.Unsupported.
func (d *Driver) Prepare(ctx context.Context, req *driverpb.PrepareRequest) (*driverpb.PrepareResponse, error) {
	return d.modules.prepare(ctx, req)
}

// Release implements [drivers.Driver]. The compiled module stays in the cache
// until its place is needed.
func (d *Driver) Release(_ context.Context, handle string) error {
	d.modules.release(handle)
	return nil
}

// Recover implements [drivers.Driver]. No execution outlives its driver, so
// none is running; workers that are found against that rule are killed.
func (d *Driver) Recover(_ context.Context, req *driverpb.RecoverRequest) (*driverpb.RecoverResponse, error) {
	killLeftovers(d.pool.spawner.mark(req.StateDir))
	return &driverpb.RecoverResponse{}, nil
}

// Execute implements [drivers.Driver]. When it returns, every execution that
// it began is ended.
func (d *Driver) Execute(ctx context.Context, commands <-chan *driverpb.Command, events chan<- *driverpb.Event) error {
	return newSession(ctx, d, events).run(commands)
}

// Close ends the idle workers and waits for all; call it when no Execute runs.
func (d *Driver) Close() error {
	d.pool.close()
	return nil
}
