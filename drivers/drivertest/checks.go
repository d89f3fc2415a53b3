package drivertest

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sheaf-run/agent/drivers/driverpb"
	"github.com/sheaf-run/agent/sheaf"
)

func program(c Capabilities) bool { return c.Program }
func signals(c Capabilities) bool { return c.Program && c.Signals }
func mounts(c Capabilities) bool  { return c.Program && c.Mounts }
func memory(c Capabilities) bool  { return c.Program && c.Memory }
func pids(c Capabilities) bool    { return c.Program && c.Pids }
func peak(c Capabilities) bool    { return c.Program && c.Peak }

func checks() []check {
	return []check{
		{"preparing again is the same", nil, preparing},
		{"a bad config is refused as invalid", nil, badConfigs},
		{"a config that cannot be read does not start", nil, unreadable},
		{"exit codes", nil, exitCodes},
		{"stdout and stderr apart", nil, apart},
		{"many short executions", nil, short},
		{"stopping what is unknown or over is nothing", nil, stopUnknown},
		{"logs are whole and in order", program, ordered},
		{"a long line is whole", program, longLine},
		{"environment as given", program, environment},
		{"arguments as given", program, arguments},
		{"stdin is empty", program, stdin},
		{"endless output waits for its reader", program, endless},
		{"a busy loop can be stopped", program, spinning},
		{"a signal can be caught", signals, catching},
		{"what ignores its signal is killed", signals, ignoring},
		{"what a task leaves behind is ended", signals, orphans},
		{"inputs are read-only and its own", mounts, inputs},
		{"hostile file names", mounts, hostileNames},
		{"outputs can be written", mounts, outputs},
		{"over its memory", memory, overMemory},
		{"over its pids", pids, overPids},
		{"memory and cpu time are measured", peak, measured},
	}
}

func preparing(t *testing.T, b *bench) {
	first, second := b.prepare(t), b.prepare(t)
	if first.GetDigest() != second.GetDigest() {
		t.Errorf("digests %q and %q of the same config", first.GetDigest(), second.GetDigest())
	}
	b.handle = second.GetHandle()
	// Another run that prepared the same gives up its handle: the second one stays good.
	if err := b.driver.Release(context.Background(), first.GetHandle()); err != nil {
		t.Errorf("release: %v", err)
	}
	if err := b.driver.Release(context.Background(), "no such handle"); err != nil {
		t.Errorf("release of an unknown handle: %v", err)
	}
	wantExit(t, b.session.Run(b.start(t, "exit", "0")), 0)
}

func badConfigs(t *testing.T, b *bench) {
	bad := map[string][]byte{"no JSON": []byte(`{`), "an unknown argument": []byte(`{"no_such_argument": 1}`)}
	for name, config := range b.Bad {
		bad[name] = config
	}
	for name, config := range bad {
		_, err := b.driver.Prepare(context.Background(), &driverpb.PrepareRequest{Run: b.run, ConfigJson: config, StateDir: b.stateDir})
		if sheaf.ClassOf(err) != sheaf.Invalid {
			t.Errorf("%s: prepare says %v (class %s), want class invalid", name, err, sheaf.ClassOf(err))
		}
	}
}

func unreadable(t *testing.T, b *bench) {
	start := b.start(t, "exit", "0")
	start.ConfigJson = []byte(`{`)
	if x := b.session.Run(start).Exited; !x.GetNotStarted() || x.GetError() == "" {
		t.Errorf("exited = %v, want not started and why", x)
	}
}

func exitCodes(t *testing.T, b *bench) {
	for _, code := range []int32{0, 1, 3, 42, 255} {
		before := time.Now().UnixMilli()
		r := b.session.Run(b.start(t, "exit", fmt.Sprint(code)))
		wantExit(t, r, code)
		// Clocks of both sides are the machine's.
		if at := r.Exited.GetStartedUnixMs(); at < before-1 || at > time.Now().UnixMilli()+1 || r.Exited.GetDurationMs() < 0 {
			t.Errorf("started at %d for %d ms, want since %d", at, r.Exited.GetDurationMs(), before)
		}
	}
}

func apart(t *testing.T, b *bench) {
	r := b.succeed(t, b.start(t, "print", "to out \x1b[31m\aé\n", "to err"))
	wantOut(t, r, "to out \x1b[31m\aé\n")
	if string(r.Stderr) != "to err" {
		t.Errorf("stderr = %q", r.Stderr)
	}
}

// short starts many executions, always 8 at once, with exit codes that tell them apart.
func short(t *testing.T, b *bench) {
	starts := make(chan *driverpb.Start, b.Short)
	want := map[string]int32{}
	for i := range b.Short {
		start := b.start(t, "exit", fmt.Sprint(i%7))
		want[start.GetExecution()] = int32(i % 7)
		starts <- start
	}
	close(starts)
	var workers sync.WaitGroup
	var mu sync.Mutex
	ended := 0
	for range shortAtOnce {
		workers.Go(func() {
			for start := range starts {
				x := b.session.Run(start).Exited
				if x.GetExitCode() != want[start.GetExecution()] || x.GetSignal() != "" || x.GetNotStarted() {
					t.Errorf("%v, want exit code %d", x, want[start.GetExecution()])
				}
				mu.Lock()
				ended++
				mu.Unlock()
			}
		})
	}
	workers.Wait()
	if ended != b.Short {
		t.Errorf("%d of %d executions ended", ended, b.Short)
	}
}

func stopUnknown(t *testing.T, b *bench) {
	b.session.Stop("never-was.0.1", "SIGTERM", time.Second)
	start := b.start(t, "exit", "3")
	wantExit(t, b.session.Run(start), 3)
	b.session.Stop(start.GetExecution(), "SIGKILL", 0)
	wantExit(t, b.session.Run(b.start(t, "exit", "3")), 3)
}

func ordered(t *testing.T, b *bench) {
	const n = 20000
	r := b.succeed(t, b.start(t, "lines", fmt.Sprint(n)))
	for stream, got := range map[string][]byte{"out": r.Stdout, "err": r.Stderr} {
		var want bytes.Buffer
		for i := range n {
			fmt.Fprintf(&want, "%s %d\n", stream, i)
		}
		if !bytes.Equal(got, want.Bytes()) {
			t.Errorf("std%s has %d bytes that end %q, want %d bytes", stream, len(got), clip(got), want.Len())
		}
	}
}

func longLine(t *testing.T, b *bench) {
	const n = 3<<20 + 17
	r := b.succeed(t, b.start(t, "bytes", fmt.Sprint(n)))
	if len(r.Stdout) != n || bytes.Count(r.Stdout, []byte("x")) != n {
		t.Errorf("stdout has %d bytes, want %d of x", len(r.Stdout), n)
	}
}

func environment(t *testing.T, b *bench) {
	t.Setenv("SHEAF_TEST_LEAK", "of the host's environment")
	start := b.start(t, "env")
	start.Env = []string{"EMPTY=", "SHEAF_PARTITION_INDEX=7", "SPACED=a  b\nc='\"$HOME\""}
	r := b.succeed(t, start)
	// Line by line would split the value that spans two.
	got := string(r.Stdout)
	for _, e := range start.GetEnv() {
		if !strings.Contains("\n"+got, "\n"+e+"\n") {
			t.Errorf("%q is missing in %q", e, got)
			continue
		}
		got = strings.TrimPrefix(strings.Replace("\n"+got, "\n"+e+"\n", "\n", 1), "\n")
	}
	for line := range strings.Lines(got) {
		name, _, _ := strings.Cut(strings.TrimSpace(line), "=")
		if name != "" && !slices.Contains(append(b.Env, "PATH"), name) {
			t.Errorf("sees %q, which it was not given", line)
		}
	}
}

func arguments(t *testing.T, b *bench) {
	args := []string{"", " ", "a b", `"`, `'`, "$HOME", "`id`", "$(id)", "a\nb", "*", "-rf", "--", "\\", "é世", "\x1b[2J", strings.Repeat("l", 10000)}
	r := b.succeed(t, b.start(t, append([]string{"args"}, args...)...))
	var want strings.Builder
	for _, a := range args {
		fmt.Fprintf(&want, "%q\n", a)
	}
	wantOut(t, r, want.String())
}

func stdin(t *testing.T, b *bench) {
	wantOut(t, b.succeed(t, b.start(t, "stdin")), "0 bytes, <nil>\n")
}
