// Package exec is the task driver for plain programs. As root each execution
// runs in a cgroup, under its limits, and with inputs or outputs in a mount namespace of its own
// (view.go), where its files lie at their paths; unprivileged it has neither, and finds its files through
// the variables that say where they are.
//
// An execution's processes end with it, whatever they did to get away: they
// are killed by their cgroup. Unprivileged it is their process group, which a process that makes a session of
// its own escapes. They also end with the driver, and what a killed driver left is ended by Recover.
//
// Launching is the hot path: each running execution has a thread (slot.go)
// that lives in a cgroup, forks the program, reads its pipes and waits for it, with no file, no goroutine
// and no cgroup made for it.
package exec

import (
	"context"
	"fmt"
	"hash/fnv"
	"log/slog"
	"os"
	"strings"
	"sync"

	"github.com/sheaf-run/agent/drivers"
	"github.com/sheaf-run/agent/drivers/cgroup"
	"github.com/sheaf-run/agent/drivers/driverpb"
	"github.com/sheaf-run/agent/sheaf"
)

// Schema is the driver's config block.
var Schema = sheaf.ConfigSchema{Driver: "exec", Attributes: []sheaf.ConfigAttribute{
	{Name: "command", Kind: sheaf.ConfigString, Required: true, Doc: "the program: an absolute path, or a name that is looked up in PATH"},
	{Name: "args", Kind: sheaf.ConfigStrings, Doc: "its arguments"},
}}

type config struct {
	Command string   `json:"command"`
	Args    []string `json:"args"`
}

func parse(data []byte) (*config, error) {
	c := &config{}
	if err := drivers.DecodeConfig("exec", data, c); err != nil {
		return nil, err
	}
	if c.Command == "" {
		return nil, &sheaf.Error{Class: sheaf.Invalid, Field: "config.command", Msg: "driver \"exec\" has no command", Hint: `set command = "…", a path or a name in PATH`}
	}
	for i, s := range append([]string{c.Command}, c.Args...) {
		if strings.IndexByte(s, 0) >= 0 {
			field := "config.command"
			if i > 0 {
				field = fmt.Sprintf("config.args[%d]", i-1)
			}
			return nil, &sheaf.Error{Class: sheaf.Invalid, Field: field, Msg: fmt.Sprintf("%q holds a NUL byte", s), Hint: "no program can be given one"}
		}
	}
	return c, nil
}

// Driver is the exec driver.
type Driver struct {
	views *views // nil where mounts cannot be made

	mu        sync.Mutex
	area      *cgroup.Area // nil before the first use, and where there is none
	areaErr   error
	areaOwner string
}

var _ drivers.Driver = (*Driver)(nil)

// New makes the driver. It starts nothing.
func New() *Driver { return &Driver{views: newViews(), areaOwner: owner("")} }

// owner is the name of the cgroup area of a state directory: agents of one machine
// are told apart by theirs, and one finds its own again after a restart.
func owner(stateDir string) string {
	h := fnv.New64a()
	h.Write([]byte(stateDir))
	return fmt.Sprintf("exec-%016x", h.Sum64())
}

// cgroups is the driver's area, made at the first use.
func (d *Driver) cgroups() (*cgroup.Area, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.area != nil || d.areaErr != nil {
		return d.area, d.areaErr
	}
	tree, err := cgroup.Find()
	if err == nil {
		d.area, err = tree.Area(d.areaOwner)
	}
	d.areaErr = err
	return d.area, err
}

// vacate removes the area, which the next use makes again, so that a driver
// that is gone leaves nothing on the machine.
func (d *Driver) vacate() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.area == nil {
		return
	}
	if err := d.area.Remove(); err != nil {
		slog.Warn("a cgroup is left", "error", err)
	}
	d.area = nil
}

// Fingerprint is always healthy; its attributes say what is enforced.
func (d *Driver) Fingerprint(context.Context) (*driverpb.FingerprintResponse, error) {
	attrs := map[string]string{"driver.exec.cgroup": "none", "driver.exec.mounts": "none"}
	if tree, err := cgroup.Find(); err == nil {
		attrs["driver.exec.cgroup"] = fmt.Sprintf("v%d", tree.Version())
	}
	if d.views.usable() {
		attrs["driver.exec.mounts"] = "private"
	}
	return &driverpb.FingerprintResponse{Name: "exec", Healthy: true, Attributes: attrs}, nil
}

// Prepare checks the config. Whether the command is there is known only
// when it starts: it may come with the inputs.
func (d *Driver) Prepare(_ context.Context, req *driverpb.PrepareRequest) (*driverpb.PrepareResponse, error) {
	if _, err := parse(req.GetConfigJson()); err != nil {
		return nil, err
	}
	return &driverpb.PrepareResponse{Handle: req.GetRun()}, nil
}

// Release has nothing to give up.
func (d *Driver) Release(context.Context, string) error { return nil }

// Recover ends everything that an earlier driver of the same state directory left; nothing outlives its driver.
func (d *Driver) Recover(_ context.Context, req *driverpb.RecoverRequest) (*driverpb.RecoverResponse, error) {
	d.mu.Lock()
	if o := owner(req.GetStateDir()); o != d.areaOwner {
		d.areaOwner, d.area, d.areaErr = o, nil, nil
	}
	d.mu.Unlock()
	area, err := d.cgroups()
	if err != nil {
		return &driverpb.RecoverResponse{}, nil // without cgroups there is nothing to find them by; the kernel ended them with their driver
	}
	if _, err := area.KillAll(); err != nil {
		return nil, fmt.Errorf("end what an earlier agent left: %w", err)
	}
	d.vacate()
	return &driverpb.RecoverResponse{}, nil
}

// devNull is every program's stdin.
var devNull = sync.OnceValues(func() (*os.File, error) { return os.Open(os.DevNull) })
