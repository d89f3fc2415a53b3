package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/sheaf"
)

// nodes serves a client's own service, as its agent does.
func nodes(t *testing.T, c *Client) wire.NodesClient {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(wire.ServerOptions()...)
	wire.RegisterNodesServer(s, c.Nodes())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(listener)
	}()
	conn, err := wire.Dialer{}.Server(listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		s.Stop()
		<-done
	})
	return wire.NewNodesClient(conn)
}

// withSpy adds the spy drivers to a client.
func withSpy(c *Config) {
	for _, name := range []string{"spy", "deaf"} {
		c.Drivers = append(c.Drivers, Driver{Name: name, Command: []string{c.Drivers[0].Command[0], "plugin", name}})
	}
}

func spyJob(config map[string]any, change ...func(*sheaf.Job)) *sheaf.Job {
	return mockJob(config, append([]func(*sheaf.Job){func(j *sheaf.Job) { j.Task.Driver = "spy" }}, change...)...)
}

// logOf reads an execution's log.
func logOf(t *testing.T, n wire.NodesClient, req *wire.ReadLogRequest) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	stream, err := n.ReadLog(ctx, req)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for {
		p, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return b.String()
		}
		if err != nil {
			t.Fatal(err)
		}
		b.Write(p.GetData())
	}
}

// TestSplitRunMerge takes a job with inputs and outputs the whole way: split,
// partitions that each see their own files, results, merge, and reading all of it.
func TestSplitRunMerge(t *testing.T) {
	in := t.TempDir()
	for i := range 5 {
		if err := os.WriteFile(filepath.Join(in, fmt.Sprintf("f%d.txt", i)), []byte(fmt.Sprint("content ", i)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	job := spyJob(map[string]any{"write": "partition ${partition.index} of ${partition.count}\n"}, func(j *sheaf.Job) {
		j.Count = 0
		j.Inputs = []sheaf.Input{{Name: "in-1", Source: "file://" + in, Mount: "/in"}}
		j.Split = &sheaf.Split{Glob: "/*.txt", BatchSize: 2}
		j.Outputs = []sheaf.Output{{Name: "res", Path: "/out", Merge: sheaf.MergeConcat, OnConflict: sheaf.ConflictError}}
		j.Task.Env = map[string]string{"WHO": "${job.name} on ${node.name}, $${not}"}
	})
	l := newLeader(t)
	c, _ := l.start(l.config(withSpy))
	l.run("r", job, 0)
	l.assignKind("r", wire.Kind_KIND_SPLIT, 0, 1, 1)
	l.until("the manifest is sealed", func() bool { return l.seal != nil })
	if l.seal.GetPartitions() != 3 || l.seal.GetBytes() != 45 || int(l.seal.GetChunks()) != len(l.chunks) {
		t.Fatalf("sealed as %v with %d chunks", l.seal, len(l.chunks))
	}

	l.run("r", job, 3)
	l.assign("r", 0, 3, 1)
	n := nodes(t, c)
	for p := range 3 {
		r := l.result(fmt.Sprintf("r.%d.1", p))
		if r.outcome != sheaf.OutcomeSucceeded {
			t.Fatalf("partition %d: %v %v", p, r.failure, r.text)
		}
	}
	log := logOf(t, n, &wire.ReadLogRequest{Run: "r", Partition: 1, Attempt: 1})
	for _, want := range []string{
		"env SHEAF_ATTEMPT=1\n", "env SHEAF_EXECUTION_ID=r.1.1\n", "env SHEAF_INPUT_IN_1=/in\n", "env SHEAF_OUTPUT_RES=/out\n",
		"env SHEAF_PARTITION_COUNT=3\n", "env SHEAF_PARTITION_INDEX=1\n", "env SHEAF_SHARD_FILE=/run/sheaf/shard.jsonl\n",
		"env WHO=test on node-1, ${not}\n", "mount /in ro=true\n", "mount /out ro=false\n",
		`file /in/f2.txt "content 2"`, `file /in/f3.txt "content 3"`,
	} {
		if !strings.Contains(log, want) {
			t.Errorf("partition 1 does not see %q", want)
		}
	}
	for _, other := range []string{"f0.txt", "f1.txt", "f4.txt"} {
		if strings.Contains(log, "file /in/"+other) {
			t.Errorf("partition 1 sees %s", other)
		}
	}
	var env []string
	for line := range strings.Lines(log) {
		if v, ok := strings.CutPrefix(line, "env "); ok {
			env = append(env, v)
		}
	}
	if !slices.IsSorted(env) {
		t.Errorf("the environment is not sorted: %q", env)
	}
	if left, _ := filepath.Glob(filepath.Join(c.dir, "work", "r", "*")); len(left) != 0 {
		t.Errorf("directories are left: %v", left)
	}

	l.assignKind("r", wire.Kind_KIND_MERGE, 0, 1, 1)
	l.until("the result is sealed", func() bool { return l.sealed != nil })
	if l.sealed.GetFiles() != 1 || l.sealed.GetBytes() != 3*17 {
		t.Errorf("sealed as %v", l.sealed)
	}
	file := mergedFile(t, n)
	if len(file.Parts) != 3 || file.Path != "out.txt" || file.Parts[2].Node != c.ID() {
		t.Fatalf("merged as %+v", file)
	}
	stream, err := n.ReadFile(t.Context(), &wire.ReadFileRequest{Run: "r", Partition: 2, Attempt: 1, Output: "res", Path: []byte("out.txt")})
	if err != nil {
		t.Fatal(err)
	}
	piece, err := stream.Recv()
	if err != nil || string(piece.GetData()) != "partition 2 of 3\n" {
		t.Errorf("part of partition 2: %q, %v", piece.GetData(), err)
	}
	records, err := n.ReadRecords(t.Context(), &wire.ReadRecordsRequest{Run: "r", First: []uint32{0}, Count: []uint32{3}, Attempt: []uint32{0}, Logs: true})
	if err != nil {
		t.Fatal(err)
	}
	for p := range uint32(3) {
		r, err := records.Recv()
		if err != nil || r.GetPartition() != p || r.GetAttempt() != 1 || !strings.Contains(string(r.GetStdout()), fmt.Sprintf("SHEAF_PARTITION_INDEX=%d\n", p)) || len(r.GetManifestJson()) == 0 {
			t.Errorf("record %d: %v, %v", p, r, err)
		}
	}

	l.send(&wire.FromServer{Body: &wire.FromServer_End{End: &wire.RunEnd{Run: "r", Delete: true}}})
	deadline := time.Now().Add(patience)
	for {
		left, _ := filepath.Glob(filepath.Join(c.dir, "store", "runs", "*"))
		if len(left) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the deleted run is still there: %v", left)
		}
		l.disconnect() // a round trip through the client
	}
}

func mergedFile(t *testing.T, n wire.NodesClient) sheaf.File {
	t.Helper()
	stream, err := n.ReadResult(t.Context(), &wire.ReadResultRequest{Run: "r", MergeAttempt: 1})
	if err != nil {
		t.Fatal(err)
	}
	piece, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	var f sheaf.File
	if err := json.Unmarshal(piece.GetData(), &f); err != nil {
		t.Fatalf("%s: %v", piece.GetData(), err)
	}
	return f
}

// TestSplitFails: the user's mistake reaches the servers in the user's words.
func TestSplitFails(t *testing.T) {
	in := t.TempDir()
	if err := os.WriteFile(filepath.Join(in, "a.csv"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	job := mockJob(nil, func(j *sheaf.Job) {
		j.Count = 0
		j.Inputs = []sheaf.Input{{Name: "in", Source: "file://" + in, Mount: "/in"}}
		j.Split = &sheaf.Split{Glob: "/*.txt", BatchSize: 1}
	})
	l := newLeader(t)
	c, _ := l.start(l.config())
	l.run("r", job, 0)
	l.assignKind("r", wire.Kind_KIND_SPLIT, 0, 1, 3)
	r := l.result(fmt.Sprint("r", wire.Kind_KIND_SPLIT, 3))
	if r.outcome != sheaf.OutcomeFailed || r.failure != sheaf.FailStage || !strings.Contains(r.text.GetMessage(), "/*.txt") {
		t.Errorf("split failed as %v %v: %q", r.outcome, r.failure, r.text.GetMessage())
	}

	b, err := json.Marshal(job)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := nodes(t, c).Preview(t.Context(), &wire.PreviewRequest{JobJson: b})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err == nil || !strings.Contains(err.Error(), "/*.txt") {
		t.Errorf("preview: %v", err)
	}
}

// TestReattach: executions whose runtime outlives the client go on over its
// restart and over the death of their driver, with their logs, and end once.
func TestReattach(t *testing.T) {
	hold := filepath.Join(t.TempDir(), "go")
	l := newLeader(t)
	cfg := l.config(withSpy)
	first, stop := l.start(cfg)
	l.run("r", spyJob(map[string]any{"hold": hold, "write": "kept"}, func(j *sheaf.Job) {
		j.Outputs = []sheaf.Output{{Name: "res", Path: "/out", Merge: sheaf.MergeUnion, OnConflict: sheaf.ConflictError}}
	}), 4)
	l.assign("r", 0, 4, 1)
	l.until("four run", func() bool { return l.running == 4 })
	stop()

	second, _ := l.start(cfg)
	if first.ID() != second.ID() {
		t.Errorf("the node was %s and is %s", first.ID(), second.ID())
	}
	l.mu.Lock()
	hello := l.hello
	l.mu.Unlock()
	if e := hello.GetExecuting(); len(e) != 1 || len(e[0].First) != 1 || e[0].Count[0] != 4 || len(hello.GetFinished())+len(hello.GetQueued()) != 0 {
		t.Fatalf("after the restart it lists %v, want four executing", hello)
	}

	n := nodes(t, second)
	for deadline := time.Now().Add(patience); !strings.Contains(logOf(t, n, &wire.ReadLogRequest{Run: "r", Partition: 2, Attempt: 1}), "found again\n"); {
		if time.Now().After(deadline) {
			t.Fatal("nothing is heard of what was re-attached")
		}
	}
	killed := killDriver(t, second, "spy")
	logs := make(chan string, 1)
	go func() {
		logs <- logOf(t, n, &wire.ReadLogRequest{Run: "r", Partition: 2, Attempt: 1, Follow: true})
	}()
	waitForNewDriver(t, second, "spy", killed)
	if err := os.WriteFile(hold, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for p := range 4 {
		r := l.result(fmt.Sprintf("r.%d.1", p))
		if r.outcome != sheaf.OutcomeSucceeded {
			t.Errorf("partition %d: %v %v", p, r.failure, r.text)
		}
	}
	if log := <-logs; strings.Count(log, "found again\n") != 2 || !strings.Contains(log, "SHEAF_PARTITION_INDEX=2\n") {
		t.Errorf("the followed log is %q", log)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.repeats != 0 || len(l.results) != 4 {
		t.Errorf("%d results, %d came twice", len(l.results), l.repeats)
	}
}

// driverPid is the process of a client's driver: a child of this one that was
// started as that plugin.
func driverPid(c *Client, name string) int {
	procs, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, p := range procs {
		b, err := os.ReadFile(p)
		if err != nil || !strings.HasSuffix(string(b), "\x00plugin\x00"+name+"\x00") {
			continue
		}
		var pid int
		_, _ = fmt.Sscanf(p, "/proc/%d/", &pid)
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue
		}
		after := string(stat[strings.LastIndexByte(string(stat), ')')+1:])
		var state string
		var parent int
		_, _ = fmt.Sscan(after, &state, &parent)
		if parent == os.Getpid() && state != "Z" {
			return pid
		}
	}
	return 0
}

func killDriver(t *testing.T, c *Client, name string) int {
	t.Helper()
	pid := driverPid(c, name)
	if pid == 0 {
		t.Fatalf("driver %s has no process", name)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	return pid
}

// waitForNewDriver waits for the process that replaces one that was killed.
func waitForNewDriver(t *testing.T, c *Client, name string, old int) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; {
		if pid := driverPid(c, name); pid != 0 && pid != old {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("driver %s is not started again", name)
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-t.Context().Done():
		}
	}
}

// TestOverDisk: what a task writes is watched while it runs.
func TestOverDisk(t *testing.T) {
	l := newLeader(t)
	l.start(l.config(withSpy))
	l.run("r", spyJob(map[string]any{"hold": "/nonexistent", "write": strings.Repeat("x", 1<<20)}, func(j *sheaf.Job) {
		j.Task.Resources.Disk = 64 << 10
		j.Outputs = []sheaf.Output{{Name: "res", Path: "/out", Merge: sheaf.MergeUnion, OnConflict: sheaf.ConflictError}}
	}), 2)
	l.assign("r", 0, 1, 1)
	if r := l.result("r.0.1"); r.failure != sheaf.FailDisk || r.text.GetMessage() != "killed: over its disk limit of 64KiB" {
		t.Errorf("%v: %v", r.failure, r.text)
	}
}

// TestWholeTree: without a split every partition gets all inputs.
func TestWholeTree(t *testing.T) {
	in := t.TempDir()
	if err := os.WriteFile(filepath.Join(in, "a.txt"), []byte("A"), 0o644); err != nil {
		t.Fatal(err)
	}
	l := newLeader(t)
	c, _ := l.start(l.config(withSpy))
	l.run("r", spyJob(nil, func(j *sheaf.Job) {
		j.Inputs = []sheaf.Input{{Name: "in", Source: "file://" + in, Mount: "/in"}}
	}), 2)
	l.assign("r", 0, 2, 1)
	n := nodes(t, c)
	for p := range 2 {
		if r := l.result(fmt.Sprintf("r.%d.1", p)); r.outcome != sheaf.OutcomeSucceeded {
			t.Fatalf("%v %v", r.failure, r.text)
		}
		log := logOf(t, n, &wire.ReadLogRequest{Run: "r", Partition: uint32(p), Attempt: 1})
		if !strings.Contains(log, "mount /in ro=true\nfile /in/a.txt \"A\"\n") || strings.Contains(log, "SHEAF_SHARD_FILE") {
			t.Errorf("partition %d sees %q", p, log)
		}
	}
}

// TestMissingInputFailsThePartition: a file that vanished since the split fails
// its partition with its name, and no other.
func TestMissingInputFailsThePartition(t *testing.T) {
	in := t.TempDir()
	for _, f := range []string{"a", "b"} {
		if err := os.WriteFile(filepath.Join(in, f), []byte(f), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	l := newLeader(t)
	c, _ := l.start(l.config(withSpy))
	job := spyJob(nil, func(j *sheaf.Job) {
		j.Count = 0
		j.Inputs = []sheaf.Input{{Name: "in", Source: "file://" + in, Mount: "/in"}}
		j.Split = &sheaf.Split{Glob: "/*", BatchSize: 1}
	})
	l.run("r", job, 0)
	l.assignKind("r", wire.Kind_KIND_SPLIT, 0, 1, 1)
	l.until("the manifest is sealed", func() bool { return l.seal != nil })
	if err := os.Remove(filepath.Join(in, "b")); err != nil {
		t.Fatal(err)
	}
	l.run("r", job, 2)
	l.assign("r", 0, 2, 1)
	if r := l.result("r.0.1"); r.outcome != sheaf.OutcomeSucceeded {
		t.Errorf("a: %v %v", r.failure, r.text)
	}
	if r := l.result("r.1.1"); r.failure != sheaf.FailStage || !strings.Contains(r.text.GetMessage(), "b") {
		t.Errorf("b: %v %v", r.failure, r.text)
	}
	if left, _ := filepath.Glob(filepath.Join(c.dir, "work", "r", "*")); len(left) != 0 {
		t.Errorf("directories are left: %v", left)
	}
}
