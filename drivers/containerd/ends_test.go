package containerd_test

import (
	"strings"
	"testing"

	"github.com/sheaf-run/agent/drivers/containerd"
)

// TestEnds: exit codes above 128 are a signal's only where one was sent, or where programs
// seldom choose them.
func TestEnds(t *testing.T) {
	n, _ := open(t, containerd.New(), t.TempDir(), busybox(t, ""))
	for script, want := range map[string]struct {
		code   int32
		signal string
	}{
		"exit 128":                       {128, ""},
		"exit 130":                       {130, ""},
		"exit 143":                       {143, ""},
		"exit 193":                       {193, ""},
		"exit 255":                       {255, ""},
		"sh -c 'kill -SEGV $$'; exit $?": {-1, "SIGSEGV"},
		"sh -c 'kill -KILL $$'; exit $?": {-1, "SIGKILL"},
	} {
		x := n.session.Run(n.sh(script)).Exited
		if x.GetExitCode() != want.code || x.GetSignal() != want.signal || x.GetNotStarted() {
			t.Errorf("%s: %v, want %v", script, x, want)
		}
	}
}

// TestStops: a program that does not handle its signal ends by it at once, though it
// is its container's process 1; one that does may end in its own way; and one that is
// stopped before it began does not begin.
func TestStops(t *testing.T) {
	n, _ := open(t, containerd.New(), t.TempDir(), busybox(t, ""))
	plain, own := n.sh("echo ready; while :; do sleep 0.01; done"), n.sh("trap 'exit 143' TERM; echo ready; while :; do sleep 0.01; done")
	n.session.Start(plain)
	n.session.Start(own)
	for _, start := range []string{plain.GetExecution(), own.GetExecution()} {
		n.session.Printed(start, "ready")
		n.session.Stop(start, "", long)
	}
	if x := n.session.Wait(plain.GetExecution()).Exited; x.GetSignal() != "SIGTERM" {
		t.Errorf("unhandled: %v", x)
	}
	// What exits like a shell does is told like one that was ended.
	if x := n.session.Wait(own.GetExecution()).Exited; x.GetSignal() != "SIGTERM" {
		t.Errorf("handled: %v", x)
	}
	early := n.sh("while :; do sleep 1; done")
	n.session.Start(early)
	n.session.Stop(early.GetExecution(), "SIGTERM", 0)
	if x := n.session.Wait(early.GetExecution()).Exited; !x.GetNotStarted() && x.GetSignal() != "SIGKILL" {
		t.Errorf("stopped early: %v", x)
	}
}

// TestCannotStart: what cannot be started says why, in words of the job.
func TestCannotStart(t *testing.T) {
	n, _ := open(t, containerd.New(), t.TempDir(), busybox(t, ""))
	for command, want := range map[string]string{"/no/such": "no such file", "nosuch": "not found in $PATH", "/etc": "permission denied"} {
		x := n.session.Run(n.start(command)).Exited
		if !x.GetNotStarted() || !strings.HasPrefix(x.GetError(), `exec: "`+command) || !strings.Contains(x.GetError(), want) {
			t.Errorf("%s: %v", command, x)
		}
	}
	start := n.sh("true")
	start.Handle = "none"
	if x := n.session.Run(start).Exited; !x.GetNotStarted() {
		t.Errorf("without an image: %v", x)
	}
}
