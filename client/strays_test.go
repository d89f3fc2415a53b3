package client

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/sheaf"
)

func withOutput(j *sheaf.Job) {
	j.Outputs = []sheaf.Output{{Name: "res", Path: "/out", Merge: sheaf.MergeUnion, OnConflict: sheaf.ConflictError}}
}

// outputFile is where a client keeps what the spy wrote for an attempt.
func outputFile(cfg Config, attempt string) string {
	return filepath.Join(cfg.DataDir, "store", "runs", "r", "out", attempt, "res", "out.txt")
}

// untilGone waits for a file to be deleted.
func untilGone(t *testing.T, path string) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; {
		if _, err := os.Stat(path); os.IsNotExist(err) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is still there", path)
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-t.Context().Done():
		}
	}
}

// TestStraysAreAskedAbout: output that a restarted client finds and has no record of goes only
// when the servers have answered that it is not committed; what is
// committed stays, though its record was damaged.
func TestStraysAreAskedAbout(t *testing.T) {
	const left = 1100 // more than are asked about at once
	l := newLeader(t)
	cfg := l.config(withSpy)
	_, stop := l.start(cfg)
	l.run("r", spyJob(map[string]any{"write": "precious"}, withOutput), 1)
	l.assign("r", 0, 1, 1)
	l.result("r.0.1")
	l.disconnect() // the answer has been taken
	stop()

	segments, _ := filepath.Glob(filepath.Join(cfg.DataDir, "store", "runs", "r", "seg-*"))
	if len(segments) != 1 {
		t.Fatalf("segments: %v", segments)
	}
	b, err := os.ReadFile(segments[0])
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)-20] ^= 0x40
	if err := os.WriteFile(segments[0], b, 0o600); err != nil {
		t.Fatal(err)
	}
	for p := range left {
		dir := filepath.Dir(outputFile(cfg, fmt.Sprintf("%d.1", p+1)))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	half := outputFile(cfg, "7.1")
	if err := os.WriteFile(half, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}

	l.mu.Lock()
	l.results = map[string]*result{}
	l.silent, l.verdict = true, wire.Verdict_VERDICT_SUPERSEDED
	l.verdicts = map[string]wire.Verdict{"r.0.1": wire.Verdict_VERDICT_ALREADY}
	l.mu.Unlock()
	l.start(cfg)
	l.mu.Lock()
	hello := l.hello
	l.mu.Unlock()
	if len(hello.GetQueued())+len(hello.GetExecuting())+len(hello.GetFinished()) != 0 {
		t.Errorf("lists %v", hello)
	}
	l.until("the first are asked about", func() bool { return len(l.results) > 0 })
	if _, err := os.Stat(half); err != nil {
		t.Fatalf("deleted before the answer: %v", err)
	}
	l.mu.Lock()
	for id, r := range l.results {
		if r.outcome != sheaf.OutcomeLost {
			t.Errorf("%s is asked about as %v", id, r.outcome)
		}
	}
	asked := len(l.results)
	l.silent = false
	l.mu.Unlock()
	if asked > 1024 {
		t.Errorf("%d are asked about at once", asked)
	}
	l.disconnect() // those without an answer are asked about again
	l.until("all are asked about", func() bool { return len(l.results) == left+1 })
	untilGone(t, filepath.Dir(filepath.Dir(half)))
	untilGone(t, filepath.Dir(filepath.Dir(outputFile(cfg, fmt.Sprintf("%d.1", left)))))
	if b, err := os.ReadFile(outputFile(cfg, "0.1")); err != nil || string(b) != "precious" {
		t.Errorf("of the committed output there is %q, %v", b, err)
	}
}

// TestSupersededFailure: its output goes, and its log stays.
func TestSupersededFailure(t *testing.T) {
	l := newLeader(t)
	l.verdict = wire.Verdict_VERDICT_SUPERSEDED
	cfg := l.config(withSpy)
	c, _ := l.start(cfg)
	l.run("r", spyJob(map[string]any{"write": "x", "exit": 7.0}, withOutput, func(j *sheaf.Job) {
		j.Failure.OnExit = []sheaf.ExitPolicy{{Codes: []int{7}, Action: sheaf.ActionIgnore}}
	}), 1)
	l.mu.Lock()
	l.silent = true
	l.mu.Unlock()
	l.assign("r", 0, 1, 1)
	if r := l.result("r.0.1"); r.outcome != sheaf.OutcomeFailed || r.failure != sheaf.FailExit || r.digest == [32]byte{} {
		t.Fatalf("ended as %+v", r)
	}
	if _, err := os.Stat(outputFile(cfg, "0.1")); err != nil {
		t.Fatalf("before the answer: %v", err)
	}
	l.mu.Lock()
	l.silent = false
	l.mu.Unlock()
	l.disconnect()
	untilGone(t, outputFile(cfg, "0.1"))
	if log := logOf(t, nodes(t, c), &wire.ReadLogRequest{Run: "r", Partition: 0, Attempt: 1}); !strings.Contains(log, "env SHEAF_PARTITION_INDEX=0\n") {
		t.Errorf("its log is %q", log)
	}
}

// TestGrace: a task is given its kill_timeout to end by itself, and none where
// it cannot know that it should.
func TestGrace(t *testing.T) {
	l := newLeader(t)
	c, _ := l.start(l.config(withSpy))
	n := nodes(t, c)
	for name, want := range map[string]string{"spy": "stop within 1000 ms\n", "deaf": "stop within 0 ms\n"} {
		job := spyJob(map[string]any{"hold": "/nonexistent"}, func(j *sheaf.Job) {
			j.Task.Driver, j.Task.Timeout = name, sheaf.Duration(100*time.Millisecond)
		})
		l.run(name, job, 1)
		l.assign(name, 0, 1, 1)
		if r := l.result(name + ".0.1"); r.failure != sheaf.FailTimeout {
			t.Errorf("%s: %v %v", name, r.failure, r.text)
		}
		if log := logOf(t, n, &wire.ReadLogRequest{Run: name, Partition: 0, Attempt: 1}); !strings.HasSuffix(log, want) {
			t.Errorf("%s: the log is %q, want %q at its end", name, log, want)
		}
	}
}

// TestScratchIsCleared: drivers' sockets are in the node's own directory, and what an agent that was killed left there goes with the
// next one's start.
func TestScratchIsCleared(t *testing.T) {
	l := newLeader(t)
	cfg := l.config()
	left := filepath.Join(cfg.DataDir, "tmp", "plugin-dir1")
	if err := os.MkdirAll(left, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(left, "spool"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, stop := l.start(cfg)
	untilGone(t, left)
	l.run("r", mockJob(map[string]any{}), 1)
	l.assign("r", 0, 1, 1)
	l.until("the result", func() bool { return len(l.results) == 1 })
	if sockets, err := filepath.Glob(filepath.Join(cfg.DataDir, "tmp", "plugin-dir*", "*")); err != nil || len(sockets) == 0 {
		t.Errorf("no socket in the node's directory: %v, %v", sockets, err)
	}
	stop()
	if rest, err := os.ReadDir(filepath.Join(cfg.DataDir, "tmp")); err != nil || len(rest) != 0 {
		t.Errorf("an end in order left %v, %v", rest, err)
	}
}
