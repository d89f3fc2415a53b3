// Package drivers is the contract between a client and the task drivers that
// run its executions. Each driver lives in a package below this one and in a
// process of its own (drivers/plugin); drivers/builtin alone names them, and
// drivers/drivertest is the suite that each must pass.
package drivers

import (
	"context"

	"github.com/sheaf-run/agent/drivers/driverpb"
)

// Driver runs executions. Its methods may be called concurrently.
type Driver interface {
	// Fingerprint says whether the driver can run tasks here, and its attributes.
	Fingerprint(ctx context.Context) (*driverpb.FingerprintResponse, error)

	// Prepare makes a task ready once for a run on this node (pull the image,
	// compile the module). Preparing the same again is cheap. An error's class
	// is sheaf.Invalid where trying again cannot help.
	Prepare(ctx context.Context, req *driverpb.PrepareRequest) (*driverpb.PrepareResponse, error)

	// Release gives up a handle of Prepare, once for each time that Prepare gave it; what it
	// named may be kept as a cache.
	Release(ctx context.Context, handle string) error

	// Recover is called once, before Execute. The driver re-attaches to those of known
	// that still run, ends every other execution of ours that it finds, and
	// returns the running ones.
	Recover(ctx context.Context, req *driverpb.RecoverRequest) (*driverpb.RecoverResponse, error)

	// Execute runs executions until commands is closed or ctx ends, and then
	// ends those that still run and cannot be recovered; when it returns they are
	// gone. For each Start exactly one Exited is sent, after all its logs, and
	// before them at most one Started. After commands is closed events are still sent: an Exited for each
	// execution that was ended, and none for those that run on and can be recovered.
	// Once ctx has ended nobody need receive events any more. At most one Execute runs at a time.
	Execute(ctx context.Context, commands <-chan *driverpb.Command, events chan<- *driverpb.Event) error
}
