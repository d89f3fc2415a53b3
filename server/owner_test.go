package server_test

import (
	"fmt"
	"sync"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sheaf-run/agent/internal/datatoken"
	"github.com/sheaf-run/agent/internal/pki"
	"github.com/sheaf-run/agent/internal/pki/pkitest"
	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/sheaf"
)

// A client's certificate, however good, speaks for the node of its own name alone: it cannot commit
// what another executes, in whichever way it tries.
func TestCertificatesSpeakForTheirOwnNode(t *testing.T) {
	authority := pkitest.New(t)
	h := startHostAs(t, authority.Keys(pki.Server, "test", "s1"), "", "")
	f := newFake(t, h, "a", func(work) sheaf.Outcome { return 0 })
	f.keys = authority.Keys(pki.Client, "test", "a")
	f.connect(nil)
	h.submit(t, "r", job(count(2)))
	f.await("work", func() bool { return len(f.begun) == 2 })

	conn, err := wire.Dialer{Keys: authority.Keys(pki.Client, "test", "thief")}.Server(h.address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c := wire.NewServersClient(conn)
	refused := func(what string, err error) {
		t.Helper()
		if status.Code(err) != codes.PermissionDenied {
			t.Errorf("%s: %v", what, err)
		}
	}
	register := func(id, name string) (*wire.RegisterResponse, error) {
		return c.Register(t.Context(), &wire.RegisterRequest{NodeJson: fmt.Appendf(nil, `{"id":%q,"name":%q,"region":"test"}`, id, name), BootId: "b"})
	}
	// hello opens a session and gives the first answer, or with a result what the stream ends with.
	hello := func(node string, session uint64, result *wire.Results) error {
		st, err := c.Session(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := st.Send(&wire.FromClient{Body: &wire.FromClient_Hello{Hello: &wire.Hello{Node: node, Session: session, BootId: "b"}}}); err != nil {
			t.Fatal(err)
		}
		if result != nil {
			if err := st.Send(&wire.FromClient{Body: &wire.FromClient_Results{Results: result}}); err != nil {
				t.Fatal(err)
			}
		}
		for {
			if _, err := st.Recv(); err != nil {
				return err
			}
		}
	}
	put := func(m *wire.PutManifestRequest) error {
		st, err := c.PutManifest(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := st.Send(m); err != nil {
			t.Fatal(err)
		}
		_, err = st.Recv()
		return err
	}

	_, err = register("a", "a")
	refused("register the node in its own name", err)
	_, err = register("a", "thief")
	refused("take the node over under one's own name", err)
	_, err = register("t", "a")
	refused("register another node under its name", err)
	refused("say hello for it", hello("a", f.session, nil))
	refused("say hello for a node that is not registered", hello("nobody", 1, nil))

	own, err := register("thief", "thief")
	if err != nil {
		t.Fatalf("register oneself: %v", err)
	}
	done := &wire.Results{Run: "r", Generation: 1, Node: "a", Session: f.session}
	add(done, work{"r", 0, 1, 0, 1}, sheaf.OutcomeSucceeded)
	refused("report its results in one's own session", hello("thief", own.Session, done))
	refused("put a chunk of its manifest", put(&wire.PutManifestRequest{Body: &wire.PutManifestRequest_Chunk{Chunk: &wire.ManifestChunk{Run: "r", Node: "a", Session: f.session, SplitAttempt: 1}}}))
	refused("seal its manifest", put(&wire.PutManifestRequest{Body: &wire.PutManifestRequest_Seal{Seal: &wire.ManifestSeal{Run: "r", Node: "a", Session: f.session, SplitAttempt: 1}}}))
	_, err = c.SealResult(t.Context(), &wire.SealResultRequest{Run: "r", Generation: 1, MergeAttempt: 1, Node: "a", Session: f.session, Digest: make([]byte, 32)})
	refused("seal its result", err)

	if c := h.Snapshot().Run("r").Counts(); c.Succeeded != 0 {
		t.Errorf("something was committed: %+v", c)
	}
	if n := h.Snapshot().Node("a"); n.Session != f.session || n.Name != "a" {
		t.Errorf("the node has become %+v", n)
	}
	// Its own certificate can.
	mine := &wire.Results{Run: "r", Generation: 1, Node: "a", Session: f.session}
	add(mine, work{"r", 0, 1, 0, 1}, sheaf.OutcomeSucceeded)
	f.out <- &wire.FromClient{Body: &wire.FromClient_Results{Results: mine}}
	h.awaitRun(t, "r", "its own result is committed", func(r *state.Run) bool { return r.Counts().Succeeded == 1 })
}

// What a run is made of and what came of it are for the nodes that work on it: a client that reads the list of
// outputs gets a token for all of them with it.
func TestRunsAreForWhoWorksOnThem(t *testing.T) {
	authority := pkitest.New(t)
	h := startHostAs(t, authority.Keys(pki.Server, "test", "s1"), "", "")
	conn, err := wire.Dialer{Keys: authority.Keys(pki.Client, "test", "thief")}.Server(h.address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	thief := wire.NewServersClient(conn)
	tried := 0
	outputs := func(what, node string, attempt uint32) {
		st, err := thief.ReadOutputs(t.Context(), &wire.ReadOutputsRequest{Run: "r", Generation: 1, MergeAttempt: attempt, Node: node})
		if err == nil {
			_, err = st.Recv()
		}
		if tried++; status.Code(err) != codes.PermissionDenied {
			t.Errorf("%s: %v", what, err)
		}
	}
	manifest := func(what, run string) {
		st, err := thief.ReadManifest(t.Context(), &wire.ReadManifestRequest{Run: run, SplitAttempt: 1, First: 0, Count: 1})
		if err == nil {
			_, err = st.Recv()
		}
		if tried++; status.Code(err) != codes.PermissionDenied {
			t.Errorf("%s: %v", what, err)
		}
	}
	outputs("outputs, before it is registered", "thief", 1)
	if _, err := thief.Register(t.Context(), &wire.RegisterRequest{NodeJson: []byte(`{"id":"thief","name":"thief","region":"test"}`), BootId: "b"}); err != nil {
		t.Fatal(err)
	}

	result := func(what string, who wire.ServersClient, node string, grant []byte, want codes.Code) {
		st, err := who.ReadOutputs(datatoken.With(t.Context(), grant), &wire.ReadOutputsRequest{Run: "r", Result: true, Node: node})
		if err == nil {
			var out *wire.Outputs
			if out, err = st.Recv(); err == nil && (out.SealedNode != "a" || len(out.SealedDigest) != 32 || len(out.Token) == 0) {
				t.Errorf("%s: %v", what, out)
			}
		}
		if tried++; status.Code(err) != want {
			t.Errorf("%s: %v", what, err)
		}
	}
	grant := func(node sheaf.NodeID, run sheaf.RunID) []byte {
		token, err := h.Grant(node, run)
		if err != nil {
			t.Error(err)
		}
		return token
	}

	f := newFake(t, h, "a", succeed)
	f.keys = authority.Keys(pki.Client, "test", "a")
	f.conduct = func(f *fake, w work) {
		switch w.kind {
		case wire.Kind_KIND_SPLIT:
			if w.run == "reader" {
				result("the result, by who splits a run that reads it", f.servers, "a", nil, codes.OK)
				result("the result, by who does not", thief, "thief", nil, codes.PermissionDenied)
			}
			putManifest(t, f, w, [][]byte{[]byte("first chunk"), []byte("second chunk")})
		case wire.Kind_KIND_MERGE:
			st, err := f.servers.ReadManifest(t.Context(), &wire.ReadManifestRequest{Run: "r", SplitAttempt: 1, First: 3, Count: 1})
			if err == nil {
				_, err = st.Recv()
			}
			if err != nil {
				t.Errorf("the manifest, by who works on the run: %v", err)
			}
			outputs("outputs while another merges", "thief", w.attempt)
			outputs("outputs in another's name", "a", w.attempt)
			outputs("outputs in nobody's name", "", w.attempt)
			outputs("outputs without a merge", "thief", 0)
			manifest("the manifest of a run that another works on", "r")
			manifest("the manifest of a run that is not there", "nowhere")
			mergeAll(t, f, w) // as who merges
		}
	}
	f.connect(nil)
	h.submit(t, "r", job(func(j *sheaf.Job) {
		j.Count, j.Split = 0, &sheaf.Split{Glob: "/*", BatchSize: 1}
		j.Inputs = []sheaf.Input{{Name: "in", Source: "file:///data", Mount: "/in"}}
		j.Outputs = []sheaf.Output{{Name: "out", Path: "/out", Merge: sheaf.MergeUnion}}
	}))
	h.awaitStatus(t, "r", sheaf.RunSucceeded)
	f.conducting.Wait()
	result("the result, which nobody reads", f.servers, "a", nil, codes.PermissionDenied)
	result("the result with a grant", thief, "thief", grant("thief", "r"), codes.OK)
	result("the result with another's grant", thief, "thief", grant("a", "r"), codes.PermissionDenied)
	result("the result with a grant for another run", thief, "thief", grant("thief", "other"), codes.PermissionDenied)
	h.submit(t, "reader", job(func(j *sheaf.Job) {
		j.Count, j.Split = 0, &sheaf.Split{Glob: "/*", BatchSize: 1}
		j.Inputs = []sheaf.Input{{Name: "in", Source: "job://r/out", Mount: "/in"}}
	}))
	h.awaitStatus(t, "reader", sheaf.RunSucceeded)
	f.conducting.Wait()
	result("the result, when who read it is over", f.servers, "a", nil, codes.PermissionDenied)
	if tried != 14 {
		t.Errorf("tried %d times", tried)
	}
}

// Two who register one ID at once cannot both have it.
func TestOneIDHasOneName(t *testing.T) {
	authority := pkitest.New(t)
	h := startHostAs(t, authority.Keys(pki.Server, "test", "s1"), "", "")
	const callers = 8
	var all sync.WaitGroup
	won := make([]bool, callers)
	for i := range callers {
		name := fmt.Sprintf("n%d", i)
		conn, err := wire.Dialer{Keys: authority.Keys(pki.Client, "test", name)}.Server(h.address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		all.Go(func() {
			_, err := wire.NewServersClient(conn).Register(t.Context(), &wire.RegisterRequest{NodeJson: fmt.Appendf(nil, `{"id":"same","name":%q,"region":"test"}`, name), BootId: "b"})
			won[i] = err == nil
			if err != nil && status.Code(err) != codes.PermissionDenied {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
	all.Wait()
	name := h.Snapshot().Node("same").Name
	for i, w := range won {
		if w != (name == fmt.Sprintf("n%d", i)) {
			t.Errorf("the node is called %s, and n%d registered: %v", name, i, w)
		}
	}
}
