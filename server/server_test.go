package server_test

import (
	"crypto/sha256"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sheaf-run/agent/internal/leaktest"
	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/server"
	"github.com/sheaf-run/agent/server/scheduler"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/sheaf"
)

// memberlist does not wait for a probe under way when it is shut down; the probe ends by its timeout.
func TestMain(m *testing.M) {
	leaktest.Main(m, goleak.IgnoreAnyFunction("github.com/hashicorp/memberlist.(*Memberlist).probeNode"))
}

func TestTenThousandPartitions(t *testing.T) {
	h := startHost(t, tempDir(t), "")
	a := newFake(t, h, "a", succeed).connect(nil)
	b := newFake(t, h, "b", succeed).connect(nil)
	h.submit(t, "big", job(count(10_000)))
	r := h.awaitStatus(t, "big", sheaf.RunSucceeded)
	if c := r.Counts(); c.Succeeded != 10_000 {
		t.Errorf("counts %+v", c)
	}
	for _, f := range []*fake{a, b} {
		f.await("the end of the run", func() bool { _, over := f.ended["big"]; return over })
		for w, n := range f.begun {
			if n != 1 || w.attempt != 1 {
				t.Fatalf("%s got %+v %d times", f.id, w, n)
			}
		}
		if len(f.begun) < 100 { // far more than it is given before it has ended any
			t.Errorf("%s got %d of 10,000: the work was not shared", f.id, len(f.begun))
		}
	}
	// The same submission again is the same run; another job under its ID is refused.
	again, err := h.Submit(t.Context(), "big", job(count(10_000)))
	if err != nil || again.Created || again.Run.Status != sheaf.RunSucceeded {
		t.Errorf("submitted again: %+v, %v", again, err)
	}
	if _, err := h.Submit(t.Context(), "big", job(count(9))); sheaf.ClassOf(err) != sheaf.Conflict {
		t.Errorf("another job under the same ID: %v", err)
	}
}

func TestFailuresRetryElsewhere(t *testing.T) {
	h := startHost(t, "", "")
	newFake(t, h, "bad", func(work) sheaf.Outcome { return sheaf.OutcomeFailed }).connect(nil)
	good := newFake(t, h, "good", succeed).connect(nil)
	h.submit(t, "r", job(count(40)))
	r := h.awaitStatus(t, "r", sheaf.RunSucceeded)
	if c := r.Counts(); c.Succeeded != 40 {
		t.Errorf("counts %+v", c)
	}
	retried := 0
	for w := range good.begun {
		if w.attempt > 1 {
			retried++
		}
	}
	if retried == 0 {
		t.Error("nothing that failed on one node was tried on the other")
	}
}

func TestPoisonEndsTheRunWithItsCause(t *testing.T) {
	h := startHost(t, "", "")
	newFake(t, h, "a", func(w work) sheaf.Outcome {
		if w.partition == 4 {
			return sheaf.OutcomeFailed
		}
		return sheaf.OutcomeSucceeded
	}).connect(nil)
	h.submit(t, "r", job(count(10)))
	r := h.awaitStatus(t, "r", sheaf.RunFailed)
	if c := r.Counts(); c.Succeeded != 9 || c.Failed != 1 || !strings.Contains(r.Error, "it broke") {
		t.Errorf("counts %+v, error %q: want nine kept, one failed, and its stderr", c, r.Error)
	}
	e, err := h.Explain("r", 4)
	if err != nil || e.Partition.Failures != 3 || len(e.Summary) == 0 {
		t.Errorf("explain: %+v, %v", e, err)
	}
	// A retry runs just that one, in the next generation.
	if _, err := h.Retry(t.Context(), "r", server.RetryFailed, nil); err != nil {
		t.Fatal(err)
	}
	r = h.awaitRun(t, "r", "the retry", func(r *state.Run) bool { return r.Generation == 2 && r.Status.Terminal() })
	if row := r.Row(4); row.Fence != 6 {
		t.Errorf("after the retry the attempt is %d, want 3 more than the 3 before", row.Fence)
	}
}

func TestCancelEndsWhatRuns(t *testing.T) {
	h := startHost(t, "", "")
	f := newFake(t, h, "a", func(work) sheaf.Outcome { return 0 }).connect(nil)
	h.submit(t, "r", job(count(1_000_000)))
	f.await("work", func() bool { return len(f.begun) >= 10 })
	if _, err := h.Cancel(t.Context(), "r"); err != nil {
		t.Fatal(err)
	}
	f.await("all it has being killed", func() bool { return len(f.kills) == len(f.begun) })
	f.await("the end", func() bool { _, over := f.ended["r"]; return over })
	if c := h.awaitStatus(t, "r", sheaf.RunCancelled).Counts(); c.Cancelled != 1_000_000 {
		t.Errorf("counts %+v", c)
	}
	if _, err := h.Cancel(t.Context(), "r"); err != nil {
		t.Errorf("cancelled twice: %v", err)
	}
	if _, err := h.Delete(t.Context(), "r"); err != nil {
		t.Fatal(err)
	}
	f.await("the deletion", func() bool { return f.ended["r"] })
	if _, err := h.Cancel(t.Context(), "nope"); sheaf.ClassOf(err) != sheaf.NotFound {
		t.Errorf("cancelled a run that is not there: %v", err)
	}
}

func TestReconnectLosesNothing(t *testing.T) {
	h := startHost(t, "", "")
	hold := newFake(t, h, "a", func(work) sheaf.Outcome { return 0 }).connect(nil)
	h.submit(t, "r", job(count(8)))
	hold.await("work", func() bool { return len(hold.begun) == 8 })
	hold.vanish()

	// The same start of the agent lists what it has: two run on, the rest never
	// reached it and comes anew, at no cost.
	again := newFake(t, h, "a", succeed)
	again.connect(&wire.Hello{Executing: []*wire.Executions{{Run: "r", Generation: 1, First: []uint32{0}, Count: []uint32{2}, Attempt: []uint32{1}}}})
	again.await("the six others", func() bool { return len(again.begun) >= 6 })
	r := h.awaitRun(t, "r", "the six others", func(r *state.Run) bool { return r.Counts().Succeeded == 6 })
	for p := range 8 {
		if row := r.Row(p); row.Losses != 0 || p >= 2 && row.Attempt != 2 || p < 2 && row.Attempt != 1 {
			t.Errorf("partition %d: %+v", p, row)
		}
	}
	again.vanish()

	// A new start that lists nothing lost what had been delivered.
	anew := newFake(t, h, "a", succeed)
	anew.boot = "another"
	anew.connect(nil)
	r = h.awaitStatus(t, "r", sheaf.RunSucceeded)
	if a, b := r.Row(0), r.Row(1); a.Losses != 1 || b.Losses != 1 || a.Attempt != 2 {
		t.Errorf("lost with the agent: %+v %+v, want one loss each and a second attempt", a, b)
	}
}

func TestRestartOnTheSameDirectory(t *testing.T) {
	dir := tempDir(t)
	h := startHost(t, dir, "")
	address := h.address
	held := func(p uint32) bool { return p >= 500 && p < 505 }
	f := newFake(t, h, "a", func(w work) sheaf.Outcome {
		if held(w.partition) {
			return 0
		}
		return sheaf.OutcomeSucceeded
	}).connect(nil)
	h.submit(t, "r", job(count(1000)))
	h.awaitRun(t, "r", "all but what is held", func(r *state.Run) bool { return r.Counts().Succeeded == 995 })
	if err := h.stop(); err != nil {
		t.Fatal(err)
	}
	<-f.gone

	h = startHost(t, dir, address)
	if c := h.Snapshot().Run("r").Counts(); c.Succeeded != 995 || c.Assigned != 5 {
		t.Fatalf("after the restart: %+v", c)
	}
	back := newFake(t, h, "a", succeed)
	back.connect(&wire.Hello{Executing: []*wire.Executions{{Run: "r", Generation: 1, First: []uint32{500}, Count: []uint32{5}, Attempt: []uint32{1}}}})
	// The same results come twice: the second time is nothing.
	for range 2 {
		r := &wire.Results{Run: "r", Generation: 1, Node: "a", Session: back.session}
		for p := range uint32(5) {
			add(r, work{"r", 0, 1, 500 + p, 1}, sheaf.OutcomeSucceeded)
		}
		back.out <- &wire.FromClient{Body: &wire.FromClient_Results{Results: r}}
	}
	r := h.awaitStatus(t, "r", sheaf.RunSucceeded)
	for p := range 1000 {
		if row := r.Row(p); row.Attempt != 1 || row.Losses != 0 {
			t.Fatalf("partition %d was run again: %+v", p, row)
		}
	}
	back.await("answers", func() bool {
		return back.answered[wire.Verdict_VERDICT_COMMITTED] == 5 && back.answered[wire.Verdict_VERDICT_ALREADY] == 5
	})
	if len(back.begun) != 0 {
		t.Errorf("it was sent %v", back.begun)
	}
}

func TestSplitAndMerge(t *testing.T) {
	h := startHost(t, tempDir(t), "")
	var begun []uint32
	f := newFake(t, h, "a", func(w work) sheaf.Outcome {
		begun = append(begun, w.partition)
		return succeed(w)
	})
	chunks := [][]byte{[]byte("first chunk"), []byte("second chunk")}
	f.conduct = func(f *fake, w work) {
		switch w.kind {
		case wire.Kind_KIND_SPLIT:
			putManifest(t, f, w, chunks)
		case wire.Kind_KIND_MERGE:
			if e, err := h.Explain("r", -1); err != nil || !slices.ContainsFunc(e.Summary, explainsLarge) {
				t.Errorf("the run is explained by %q, %v", e.Summary, err)
			}
			mergeAll(t, f, w)
		}
	}
	f.connect(nil)
	h.submit(t, "r", job(func(j *sheaf.Job) {
		j.Count, j.Split = 0, &sheaf.Split{Glob: "/*", BatchSize: 1}
		j.Inputs = []sheaf.Input{{Name: "in", Source: "file:///data", Mount: "/in"}}
		j.Outputs = []sheaf.Output{{Name: "out", Path: "/out", Merge: sheaf.MergeUnion}}
	}))
	r := h.awaitStatus(t, "r", sheaf.RunSucceeded)
	f.conducting.Wait()
	if r.Counts().Succeeded != 5 || !r.Result.Sealed || r.Manifest.Partitions != 5 {
		t.Errorf("run %+v", r.Stub())
	}
	f.note(func() {
		if want := []uint32{3, 0, 1, 2, 4}; !slices.Equal(begun, want) {
			t.Errorf("begun were %v, and with the large one first it is %v", begun, want)
		}
	})
	for p := range 5 {
		if e, err := h.Explain("r", p); err != nil || slices.ContainsFunc(e.Summary, explainsLarge) != (p == 3) {
			t.Errorf("partition %d is explained by %q, %v", p, e.Summary, err)
		}
	}
	st, err := f.servers.ReadManifest(t.Context(), &wire.ReadManifestRequest{Run: "r", SplitAttempt: 1, First: 3, Count: 1})
	if err != nil {
		t.Fatal(err)
	}
	c, err := st.Recv()
	if err != nil || string(c.Data) != "second chunk" || c.First != 2 || c.Count != 3 {
		t.Errorf("the chunk of partition 3: %v, %v", c, err)
	}
	if _, err := st.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("after it: %v", err)
	}
	if spec := f.specs["r"]; spec.SplitAttempt != 1 || spec.Partitions != 5 || len(spec.ManifestDigest) != 32 {
		t.Errorf("the partitions' spec names manifest %d with %d partitions", spec.SplitAttempt, spec.Partitions)
	}
}

// putManifest uploads a manifest of two chunks, the first of two partitions and the second of three.
func putManifest(t *testing.T, f *fake, w work, chunks [][]byte) {
	st, err := f.servers.PutManifest(t.Context())
	if err != nil {
		t.Error(err)
		return
	}
	root := sha256.New()
	first := uint32(0)
	for i, data := range chunks {
		sum := sha256.Sum256(data)
		root.Write(sum[:])
		n := uint32(2 + i)
		if err := st.Send(&wire.PutManifestRequest{Body: &wire.PutManifestRequest_Chunk{Chunk: &wire.ManifestChunk{
			Run: string(w.run), SplitAttempt: w.attempt, Sequence: uint32(i), First: first, Count: n, Data: data, Session: f.session, Node: f.id,
		}}}); err != nil {
			t.Error(err)
		}
		first += n
		if a, err := st.Recv(); err != nil || a.Contiguous != uint32(i+1) {
			t.Errorf("chunk %d: %v, %v", i, a, err)
			return
		}
	}
	stale := &wire.ManifestSeal{Run: string(w.run), SplitAttempt: w.attempt + 1, Session: f.session, Node: f.id}
	seal := &wire.ManifestSeal{Run: string(w.run), SplitAttempt: w.attempt, Chunks: 2, Partitions: first, Root: root.Sum(nil), Session: f.session, Node: f.id, Largest: []uint32{3}}
	if err := st.Send(&wire.PutManifestRequest{Body: &wire.PutManifestRequest_Seal{Seal: seal}}); err != nil {
		t.Error(err)
	}
	if a, err := st.Recv(); err != nil || !a.Sealed {
		t.Errorf("seal: %v, %v", a, err)
	}
	if err := st.Send(&wire.PutManifestRequest{Body: &wire.PutManifestRequest_Seal{Seal: stale}}); err != nil {
		t.Error(err)
	}
	if _, err := st.Recv(); status.Code(err) != codes.Aborted {
		t.Errorf("the seal of an attempt that was never placed: %v", err)
	}
}

func explainsLarge(why string) bool { return strings.Contains(why, "far more bytes than the others") }

// mergeAll reads what is to be merged and seals.
func mergeAll(t *testing.T, f *fake, w work) {
	read := func(attempt uint32) (n int, err error) {
		st, err := f.servers.ReadOutputs(t.Context(), &wire.ReadOutputsRequest{Run: string(w.run), Generation: w.generation, MergeAttempt: attempt, Node: f.id})
		if err != nil {
			return 0, err
		}
		for {
			o, err := st.Recv()
			if errors.Is(err, io.EOF) {
				return n, nil
			}
			if err != nil {
				return n, err
			}
			for i, p := range o.Partition {
				if int(p) != n || o.Digest[32*i] != byte(p) || o.Nodes[o.Node[i]] != f.id || o.Attempt[i] != 1 {
					t.Errorf("output %d: %+v", i, o)
				}
				n++
			}
		}
	}
	if n, err := read(w.attempt); n != 5 || err != nil {
		t.Errorf("read %d outputs, %v", n, err)
	}
	if _, err := read(w.attempt + 1); status.Code(err) != codes.Aborted {
		t.Errorf("read for a merge attempt that is not valid: %v", err)
	}
	sum := sha256.Sum256([]byte("merged"))
	resp, err := f.servers.SealResult(t.Context(), &wire.SealResultRequest{Run: string(w.run), Generation: w.generation, MergeAttempt: w.attempt, Digest: sum[:], Node: f.id, Session: f.session})
	if err != nil || resp.Verdict != wire.Verdict_VERDICT_COMMITTED {
		t.Errorf("seal: %v, %v", resp, err)
	}
}

func TestExplainSaysWhatIsMissing(t *testing.T) {
	h := startHost(t, "", "")
	h.submit(t, "r", job(func(j *sheaf.Job) { j.Task.Driver = "containerd" }))
	say := func() string {
		e, err := h.Explain("r", -1)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(e.Summary, "; ")
	}
	if got := say(); !strings.Contains(got, "no node yet") {
		t.Errorf("without nodes: %q", got)
	}
	f := newFake(t, h, "a", succeed).connect(nil)
	f.await("its lease", func() bool { return true })
	if got := say(); !strings.Contains(got, `no driver "containerd"`) {
		t.Errorf("without the driver: %q", got)
	}
	if p := h.Progress("r"); len(p.Waiting) != 1 {
		t.Errorf("progress waits for %q", p.Waiting)
	}
	published := h.Obstacles(job(func(j *sheaf.Job) { j.Publish = &sheaf.Publish{To: "s3://bucket/results/"} }))
	if published.Placeable() || len(published.Reasons) != 1 || published.Reasons[0].Code != "no_place" || !strings.Contains(published.Text(), "may not write to s3://bucket/results/") {
		t.Errorf("a job whose result no node may publish: %+v", published)
	}
	o := h.Obstacles(job(func(j *sheaf.Job) { j.Task.Resources.CPU = 9999 }))
	if o.Feasible != 0 || len(o.Reasons) != 1 || o.Reasons[0].Code != scheduler.CPU {
		t.Errorf("obstacles %+v", o)
	}
	if _, err := h.Explain("nope", -1); sheaf.ClassOf(err) != sheaf.NotFound {
		t.Errorf("explain a run that is not there: %v", err)
	}
}

func TestSessionsKeepToThemselves(t *testing.T) {
	h := startHost(t, "", "")
	f := newFake(t, h, "a", func(work) sheaf.Outcome { return 0 }).connect(nil)
	h.submit(t, "r", job(count(2)))
	f.await("work", func() bool { return len(f.begun) == 2 })

	// Another node reports a's partition: its stream ends, and nothing is committed.
	conn, err := wire.Dialer{}.Server(h.address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c := wire.NewServersClient(conn)
	resp, err := c.Register(t.Context(), &wire.RegisterRequest{NodeJson: []byte(`{"id":"thief","region":"test"}`), BootId: "b"})
	if err != nil {
		t.Fatal(err)
	}
	st, err := c.Session(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	send := func(m *wire.FromClient) {
		if err := st.Send(m); err != nil {
			t.Fatal(err)
		}
	}
	send(&wire.FromClient{Body: &wire.FromClient_Hello{Hello: &wire.Hello{Node: "thief", Session: resp.Session, BootId: "b"}}})
	r := &wire.Results{Run: "r", Generation: 1, Node: "a", Session: f.session}
	add(r, work{"r", 0, 1, 0, 1}, sheaf.OutcomeSucceeded)
	send(&wire.FromClient{Body: &wire.FromClient_Results{Results: r}})
	for err == nil {
		_, err = st.Recv()
	}
	if status.Code(err) != codes.PermissionDenied {
		t.Errorf("results in another's name: %v", err)
	}
	if c := h.Snapshot().Run("r").Counts(); c.Succeeded != 0 {
		t.Errorf("they were committed: %+v", c)
	}
	for _, m := range []*wire.RegisterRequest{
		{NodeJson: []byte(`{"id":"x","region":"elsewhere"}`)},
		{NodeJson: []byte(`{"id":"x","region":"test"}`), ClusterId: "another"},
	} {
		if _, err := c.Register(t.Context(), m); status.Code(err) != codes.PermissionDenied {
			t.Errorf("registered %s: %v", m, err)
		}
	}
	if _, err := c.Register(t.Context(), &wire.RegisterRequest{NodeJson: []byte(`{"id":"../x"}`)}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("registered a node of no name: %v", err)
	}
}

func TestNodeLostMovesItsWork(t *testing.T) {
	t.Parallel() // it waits for a lease to run out
	h := startHost(t, "", "", func(c *server.Config) { c.Heartbeat = server.Heartbeat{} })
	dead := newFake(t, h, "dead", func(work) sheaf.Outcome { return 0 }).connect(nil)
	h.submit(t, "r", job(count(6)))
	dead.await("work", func() bool { return len(dead.begun) == 6 })
	began := time.Now()
	dead.vanish()
	newFake(t, h, "alive", succeed).connect(nil)
	r := h.awaitStatus(t, "r", sheaf.RunSucceeded)
	t.Logf("moved after %v", time.Since(began).Round(time.Millisecond))
	for p := range 6 {
		if row := r.Row(p); row.Losses != 1 || row.Attempt != 2 {
			t.Errorf("partition %d: %+v", p, row)
		}
	}
}
