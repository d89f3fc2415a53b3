package cluster

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sheaf-run/agent/drivers/containerd/containerdtest"
	"github.com/sheaf-run/agent/e2e/build"
)

// long asks for the campaigns at full length, with times held against what is promised.
var long = flag.Bool("long", false, "run the campaigns at full length and hold times against what is promised")

// Programs that TestMain builds.
var (
	binary string // the agent
	hasher string // the task of the ledger job
	waiter string // a task that runs until it is let go
)

// patience is how long anything may take that must happen.
const patience = 3 * time.Minute

// forever is longer than all tests together may take.
const forever = 24 * time.Hour

// pollEvery is how often what happens in other processes is looked at.
const pollEvery = 50 * time.Millisecond

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(func() int {
		if os.Geteuid() != 0 {
			fmt.Fprintln(os.Stderr, "these tests make network namespaces and cgroups: run them as root")
			return 1
		}
		dir, err := os.MkdirTemp("", "sheaf-cluster-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		for _, p := range []struct {
			path *string
			pkg  string
		}{{&binary, build.Agent}, {&hasher, "./testdata/ledger"}, {&waiter, "../testdata/gated"}} {
			*p.path = filepath.Join(dir, filepath.Base(p.pkg))
			if err := build.Program(*p.path, p.pkg); err != nil {
				fmt.Fprintln(os.Stderr, err)
				return 1
			}
		}
		if err := sweep(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		daemon, err := containerdtest.Start()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer daemon.Stop()
		// The agents hand it on to their containerd driver.
		if err := os.Setenv("CONTAINERD_ADDRESS", daemon.Address); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		code := m.Run()
		writeFigures(os.Stdout)
		if left := leftovers(); len(left) > 0 {
			fmt.Fprintln(os.Stderr, "what clusters made is left:", left)
			return 1
		}
		return code
	}())
}

// parallel lets campaigns share the machine, where no times are compared.
func parallel(t *testing.T) {
	t.Helper()
	if !*long {
		t.Parallel()
	}
}

// either is the size of something in the short and in the long form.
func either[T any](short, full T) T {
	if *long {
		return full
	}
	return short
}

// await polls until good, which other processes bring about.
func await(t testing.TB, what string, good func() bool) {
	t.Helper()
	if !within(patience, good) {
		t.Fatalf("waited %s in vain until %s", patience, what)
	}
}

// moving is within for what takes long on a busy machine: it gives up when the state, what it has come to, has
// been the same for too long.
func moving(look func() (state string, good bool)) (reached bool) {
	last, changed := "", time.Now()
	within(forever, func() bool {
		var state string
		if state, reached = look(); state != last {
			last, changed = state, time.Now()
		}
		return reached || time.Since(changed) > patience
	})
	return reached
}

// within polls until good, for at most so long. Looking must not keep the cluster busy: what took long is asked seldom.
func within(limit time.Duration, good func() bool) bool {
	return poll(limit, good, func(took time.Duration) time.Duration { return max(pollEvery, 4*took) })
}

// promptly is within where the time itself is what is measured.
func promptly(limit time.Duration, good func() bool) bool {
	return poll(limit, good, func(time.Duration) time.Duration { return pollEvery })
}

func poll(limit time.Duration, good func() bool, rest func(took time.Duration) time.Duration) bool {
	deadline := time.Now().Add(limit)
	for {
		began := time.Now()
		if good() {
			return true
		}
		if time.Now().After(deadline) {
			return false
		}
		<-time.After(rest(time.Since(began)))
	}
}

// pause is for how long a fault lasts.
func pause(length time.Duration) { <-time.After(length) }
