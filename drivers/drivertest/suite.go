package drivertest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/sheaf-run/agent/drivers"
	"github.com/sheaf-run/agent/drivers/driverpb"
	"github.com/sheaf-run/agent/sheaf"
)

const (
	defaultShort  = 1000
	shortAtOnce   = 8
	defaultMemory = 64 << 20
	defaultPids   = 64 // a Go program is up to a dozen threads
)

// bench is what the checks work on: a driver with a session open, and its program prepared.
type bench struct {
	Subject
	driver   drivers.Driver
	session  *Session
	stateDir string
	handle   string
	run      string
	count    int
}

// check is one promise of the contract.
type check struct {
	name  string
	needs func(Capabilities) bool // nil: every driver
	do    func(*testing.T, *bench)
}

// Run runs the suite on a driver. Each check is a subtest; those that need a
// capability the driver doesn't claim are left out.
func Run(t *testing.T, s Subject) {
	if s.Short == 0 {
		s.Short = defaultShort
	}
	if s.Memory == 0 {
		s.Memory = defaultMemory
	}
	b := open(t, s, t.TempDir())
	for _, c := range checks() {
		if c.needs != nil && !c.needs(s.Can) {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			b.session.On(t)
			defer b.session.On(quiet{t})
			c.do(t, b)
		})
	}
	b.session.On(t)
	// These end the session, so each has a driver of its own.
	for name, do := range map[string]func(*testing.T, *bench){
		"closing the commands ends what runs": closing,
		"cancelling ends what runs":           cancelling,
	} {
		t.Run(name, func(t *testing.T) { do(t, open(t, s, t.TempDir())) })
	}
	if s.Can.Survive {
		t.Run("recover re-attaches to the known and ends the rest", func(t *testing.T) { recovering(t, s) })
	}
}

// quiet keeps an event that comes between two subtests from failing one that is over.
type quiet struct{ testing.TB }

func (quiet) Errorf(string, ...any) {}

func open(t *testing.T, s Subject, stateDir string) *bench {
	t.Helper()
	b := &bench{Subject: s, driver: s.New(t), stateDir: stateDir, run: fmt.Sprintf("suite-%08x", rand.Uint32())}
	fp, err := b.driver.Fingerprint(context.Background())
	if err != nil || fp.GetName() == "" || !fp.GetHealthy() {
		t.Fatalf("fingerprint = %v, %v, want a name and healthy", fp, err)
	}
	rec, err := b.driver.Recover(context.Background(), &driverpb.RecoverRequest{
		StateDir: stateDir, Known: []*driverpb.Known{{Execution: "never-was.0.1", State: []byte("?")}},
	})
	if err != nil || len(rec.GetRunning()) > 0 {
		t.Fatalf("recover = %v, %v, want nothing running", rec, err)
	}
	b.handle = b.prepare(t).GetHandle()
	b.session = Open(t, b.driver)
	return b
}

func (b *bench) prepare(t *testing.T) *driverpb.PrepareResponse {
	t.Helper()
	resp, err := b.driver.Prepare(context.Background(), &driverpb.PrepareRequest{
		Run: b.run, ConfigJson: b.Config(t, "exit", "0"), StateDir: b.stateDir, MemoryBytes: b.Memory, Network: "none",
	})
	if err != nil {
		t.Fatalf("prepare: %v", err)
	}
	return resp
}

// start is a Start of the program with a verb and its arguments.
func (b *bench) start(t *testing.T, args ...string) *driverpb.Start {
	t.Helper()
	b.count++
	return &driverpb.Start{
		Execution: string(sheaf.NewExecutionID(sheaf.RunID(b.run), b.count, 1)), Handle: b.handle,
		ConfigJson: b.Config(t, args...),
		CpuMhz:     500, MemoryBytes: b.Memory, Pids: defaultPids, Network: "none", Share: b.Share,
	}
}

// succeed runs the program and wants exit code 0.
func (b *bench) succeed(t *testing.T, start *driverpb.Start) *Result {
	t.Helper()
	r := b.session.Run(start)
	wantExit(t, r, 0)
	return r
}

func wantExit(t *testing.T, r *Result, code int32) {
	t.Helper()
	x := r.Exited
	if x.GetExitCode() != code || x.GetSignal() != "" || x.GetNotStarted() || x.GetOutOfMemory() || x.GetOutOfPids() {
		t.Fatalf("exited = %v, want exit code %d; stdout %q stderr %q", x, code, clip(r.Stdout), clip(r.Stderr))
	}
}

func wantOut(t *testing.T, r *Result, stdout string) {
	t.Helper()
	if string(r.Stdout) != stdout {
		t.Fatalf("stdout = %q, want %q; stderr %q", clip(r.Stdout), stdout, clip(r.Stderr))
	}
}
