// Package containerd runs executions in containers, by containerd and runc. An image comes
// from a registry or from an OCI or docker archive, and is resolved to a digest when a
// run is prepared. A container has no capabilities, no network unless the job asks,
// a read-only root with a writable /tmp, and limits of cpu, memory and pids.
//
// Executions that may share a container (pool.go) run in kept ones, one after another: a supervisor of ours
// (package drivers/supervisor) is their process 1, and each execution's files are put in place from outside, by a thread that
// lives in the container's mount namespace (worker.go, scratch.go). A kept container is as the first execution found it, or it
// is not used again. It ends with this process, and so do the executions in it.
//
// Other containers outlive this process and the daemon. Each carries its owner, one for each state
// directory, as a label; Recover takes up those that the client knows and ends the owner's others.
// Output flows through named pipes that the container's shim holds open: a program that prints more
// than they hold waits until somebody reads again. Of a container that ends
// while nobody reads, what its pipes hold is lost; its exit code is not.
package containerd

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/sheaf-run/agent/drivers"
	"github.com/sheaf-run/agent/drivers/driverpb"
	"github.com/sheaf-run/agent/sheaf"
)

// Name is what jobs call the driver.
const Name = "containerd"

// Schema is the driver's config block.
var Schema = sheaf.ConfigSchema{Driver: Name, Attributes: []sheaf.ConfigAttribute{
	{Name: "image", Kind: sheaf.ConfigString, Required: true, Doc: "a reference, `oci-archive:PATH` or `docker-archive:PATH`, where PATH may be a URL"},
	{Name: "entrypoint", Kind: sheaf.ConfigStrings, Doc: "instead of the image's"},
	{Name: "args", Kind: sheaf.ConfigStrings, Doc: "instead of the image's command"},
	{Name: sheaf.RegistrySecret, Kind: sheaf.ConfigString, Doc: "the secret that the registry wants: `user:password`, or the JSON of a docker config"},
}}

const (
	// namespace keeps our images and containers apart from others'.
	namespace = "sheaf"
	// snapshotter is the one that containerd has on every Linux.
	snapshotter = "overlayfs"
	// atOnce is how many containers are made or removed at once: measured on two cores, four leave
	// them idle at times when others work beside us, and eight are slower again when nobody does.
	atOnce = 6
	// answerTime bounds the daemon's answer to a fingerprint: one that is slow on a busy machine is no
	// reason to run nothing there.
	answerTime = 20 * time.Second

	labelExecution = "run.sheaf/execution"
	labelOwner     = "run.sheaf/owner"
)

// config is a task's config block.
type config struct {
	Image      string   `json:"image"`
	Entrypoint []string `json:"entrypoint"`
	Args       []string `json:"args"`
	// RegistrySecret is the client's to read: its value comes with Prepare.
	RegistrySecret string `json:"registry_secret"`
}

// Driver runs executions in containers.
type Driver struct {
	daemon daemon
	turns  chan struct{} // a token for each container that is being made or removed

	keep time.Duration // of images that no run uses
	idle time.Duration // how long a container is kept for the next execution

	sweeping  sync.Mutex   // held by the first Prepare while it ends what Recover could not
	preparing sync.RWMutex // held for reading while an image is being prepared

	mu        sync.Mutex
	owner     string // of our containers; set by Recover
	pipes     string // directory of the output pipes; set by Recover
	unswept   bool   // Recover found no daemon: what is left of ours is ended later
	recovered []*execution
	prepared  map[string]*prepared // by handle, which is the image's digest
	looked    time.Time            // when unused images were looked for
}

var _ drivers.Driver = (*Driver)(nil)

// New makes a driver; it connects when it is first asked for something.
func New() *Driver {
	address := os.Getenv(AddressVariable)
	if address == "" {
		address = DefaultAddress
	}
	return &Driver{daemon: daemon{address: address}, turns: make(chan struct{}, atOnce), keep: kept(), idle: idleLife, prepared: map[string]*prepared{}}
}

// Fingerprint asks containerd for its version. A daemon that is not there is told at once.
func (d *Driver) Fingerprint(ctx context.Context) (*driverpb.FingerprintResponse, error) {
	out := &driverpb.FingerprintResponse{Name: Name}
	ctx, stop := context.WithTimeout(ctx, answerTime)
	defer stop()
	conn, ctx, err := d.daemon.connect(ctx)
	if err != nil {
		out.Reason = err.Error()
		return out, nil
	}
	v, err := conn.Version(ctx)
	if err != nil {
		out.Reason = fmt.Sprintf("containerd at %s does not answer: %v", d.daemon.address, err)
		return out, nil
	}
	out.Healthy = true
	out.Attributes = map[string]string{"version": v.Version}
	return out, nil
}

// settle notes whose containers are ours and where their pipes are.
func (d *Driver) settle(stateDir string) error {
	pipes, err := filepath.Abs(filepath.Join(stateDir, "containerd"))
	if err == nil {
		err = os.MkdirAll(pipes, 0o700)
	}
	if err != nil {
		return fmt.Errorf("make the directory of output pipes: %w", err)
	}
	sum := sha256.Sum256([]byte(pipes))
	d.mu.Lock()
	defer d.mu.Unlock()
	d.owner, d.pipes = hex.EncodeToString(sum[:8]), pipes
	return nil
}

// containerID names an execution's container. Execution IDs may be longer than
// containerd allows, and two agents may share a daemon.
func (d *Driver) containerID(execution string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	sum := sha256.Sum256([]byte(d.owner + "\x00" + execution))
	return "sheaf-" + hex.EncodeToString(sum[:16])
}

// turn waits for the right to make or remove a container; false is the end of ctx.
func (d *Driver) turn(ctx context.Context) bool {
	select {
	case d.turns <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

func (d *Driver) over() { <-d.turns }
