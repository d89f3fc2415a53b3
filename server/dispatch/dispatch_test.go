package dispatch_test

import (
	"fmt"
	"testing"

	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/server/dispatch"
	"github.com/sheaf-run/agent/server/fsm"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/sheaf"
)

// bench is a leader with one node, n, and one run, r, of 20 partitions.
type bench struct {
	t     *testing.T
	m     *fsm.Machine
	core  *dispatch.Core
	index uint64
}

func newBench(t *testing.T) *bench {
	b := &bench{t: t, m: fsm.New(state.New(&state.MemoryChunks{})), core: dispatch.New()}
	b.register("boot1")
	b.apply(&fsm.Command{Body: &fsm.Command_RegisterJob{RegisterJob: &fsm.RegisterJob{Run: "r",
		JobJson: []byte(`{"name":"j","count":20,"retry":{"attempts":1,"delay":"0s","max_delay":"0s"},"task":{"kill_timeout":"0s"},"failure":{"tolerate":0}}`)}}})
	return b
}

func (b *bench) snap() *state.Snapshot { return b.m.Store().Snapshot() }

func (b *bench) apply(c *fsm.Command) fsm.Reply {
	b.t.Helper()
	data, err := fsm.Encode(c)
	if err != nil {
		b.t.Fatal(err)
	}
	b.index++
	r, err := b.m.Apply(b.index, data)
	if err != nil || r.Err != nil {
		b.t.Fatal(err, r.Err)
	}
	return r
}

func (b *bench) register(boot string) uint64 {
	return b.apply(&fsm.Command{Body: &fsm.Command_RegisterNode{RegisterNode: &fsm.RegisterNode{NodeJson: []byte(`{"id":"n"}`), BootId: boot}}}).Session
}

// place puts partitions first..first+count-1 on the node, and queues them unless the
// core is to know nothing of it.
func (b *bench) place(first, count uint32, known bool) {
	b.t.Helper()
	p := b.apply(&fsm.Command{Body: &fsm.Command_ApplyPlan{ApplyPlan: &fsm.ApplyPlan{Placements: []*fsm.Placement{
		{Run: "r", Node: "n", Session: b.snap().Node("n").Session, First: []uint32{first}, Count: []uint32{count}}}}}}).Placed[0]
	if p.Executions == nil {
		b.t.Fatal(p.Reason)
	}
	if known {
		b.core.Placed("n", p.Executions)
	}
}

func (b *bench) release(all []*fsm.Release) {
	b.t.Helper()
	for _, r := range all {
		b.core.Ended("n", b.apply(&fsm.Command{Body: &fsm.Command_Release{Release: r}}).Ended)
	}
}

func (b *bench) hello(boot string, queued, executing, finished []*wire.Executions) dispatch.Reconciliation {
	b.t.Helper()
	rec, err := b.core.Hello(&wire.Hello{Node: "n", Session: b.snap().Node("n").Session, BootId: boot, Queued: queued, Executing: executing, Finished: finished}, b.snap())
	if err != nil {
		b.t.Fatal(err)
	}
	return rec
}

func list(first, count, attempt uint32) []*wire.Executions {
	return []*wire.Executions{{Run: "r", First: []uint32{first}, Count: []uint32{count}, Attempt: []uint32{attempt}}}
}

func (b *bench) want(what string, got []*wire.Executions, want string) {
	b.t.Helper()
	text := ""
	for _, e := range got {
		for i, first := range e.First {
			text += fmt.Sprintf("%s@%d ", sheaf.Ranges{{First: int(first), Last: int(first + e.Count[i] - 1)}}, e.Attempt[i])
		}
	}
	if len(text) > 0 {
		text = text[:len(text)-1]
	}
	if text != want {
		b.t.Errorf("%s: %q, not %q", what, text, want)
	}
}

func TestNothingIsSentTwice(t *testing.T) {
	b := newBench(t)
	b.place(0, 5, true)
	b.want("without a stream", b.core.Next("n", 9, b.snap()), "")
	b.hello("boot1", nil, nil, nil)
	b.want("first", b.core.Next("n", 2, b.snap()), "0-1@1")
	b.want("rest", b.core.Next("n", 9, b.snap()), "2-4@1")
	b.want("again", b.core.Next("n", 9, b.snap()), "")
	if n := b.core.Delivered("n"); n != 5 {
		t.Errorf("%d are delivered", n)
	}
	b.core.Answered("n", &wire.Answers{Run: "r", Partition: []uint32{0, 1}, Attempt: []uint32{1, 1}, Verdict: []byte{byte(wire.Verdict_VERDICT_COMMITTED), byte(wire.Verdict_VERDICT_RESEND)}})
	if n := b.core.Delivered("n"); n != 4 {
		t.Errorf("%d are delivered behind an answer and a resend", n)
	}
}

// TestReconnectedClient: what the same start of a client does not list never
// reached it, and is free; what was never sent goes on waiting.
func TestReconnectedClient(t *testing.T) {
	b := newBench(t)
	b.hello("boot1", nil, nil, nil)
	b.place(0, 6, true)
	b.core.Next("n", 6, b.snap())
	b.place(6, 2, true)
	rec := b.hello("boot1", list(0, 2, 1), list(2, 1, 1), list(3, 1, 1))
	b.want("start", rec.Start, "0-1@1")
	b.want("kill", rec.Kill, "")
	if len(rec.Release) != 1 || len(rec.Release[0].Lost) != 0 {
		t.Fatalf("%v", rec.Release)
	}
	b.want("free", rec.Release[0].Free, "4-5@1")
	b.release(rec.Release)
	b.want("sent", b.core.Next("n", 9, b.snap()), "6-7@1")
	if row := b.snap().Run("r").Row(4); row.State != sheaf.PartitionPending || row.Losses != 0 {
		t.Errorf("%+v", row)
	}
}

// TestRestartedClient: what an earlier start was given and this one does not
// know is a loss; a new leader, which does not know what was delivered, says so too.
func TestRestartedClient(t *testing.T) {
	b := newBench(t)
	b.hello("boot1", nil, nil, nil)
	b.place(0, 3, true)
	b.core.Next("n", 3, b.snap())
	b.place(3, 2, true)
	b.register("boot2")
	if b.core.Outdated("n", b.snap()) != true {
		t.Error("the stream of the session before is not outdated")
	}
	b.want("on a stream of an old session", b.core.Next("n", 9, b.snap()), "")
	rec := b.hello("boot2", nil, list(2, 1, 1), nil)
	if len(rec.Release) != 1 || !rec.Release[0].Reconciled || len(rec.Release[0].Free) != 0 {
		t.Fatalf("%v", rec.Release)
	}
	b.want("lost", rec.Release[0].Lost, "0-1@1")
	b.release(rec.Release)
	if !b.snap().Node("n").Placeable() {
		t.Error("the node is not open for placements")
	}
	if row := b.snap().Run("r").Row(0); row.Losses != 1 {
		t.Errorf("%+v", row)
	}
	b.want("what was never sent", b.core.Next("n", 9, b.snap()), "3-4@1")

	b.core = dispatch.New()
	b.register("boot3")
	rec = b.hello("boot3", nil, nil, list(3, 1, 1))
	b.want("lost, to a new leader", rec.Release[0].Lost, "2@1 4@1")
}

func TestNewLeaderFreesWhatTheClientNeverGot(t *testing.T) {
	b := newBench(t)
	b.place(0, 3, false) // by the leader before
	b.place(3, 1, true)
	rec := b.hello("boot1", list(0, 1, 1), nil, nil)
	b.want("free", rec.Release[0].Free, "1-2@1")
	b.want("start", rec.Start, "0@1")
}

func TestWhatIsNotValidIsKilled(t *testing.T) {
	b := newBench(t)
	b.place(0, 2, true)
	rec := b.hello("boot1", list(0, 3, 1), []*wire.Executions{{Run: "gone", First: []uint32{0}, Count: []uint32{1}, Attempt: []uint32{1}}, list(1, 1, 7)[0]}, list(5, 1, 1))
	b.want("kill", rec.Kill, "2@1 0@1 1@7")
	b.want("start", rec.Start, "0-1@1")
	b.want("sent", b.core.Next("n", 9, b.snap()), "")
	b.want("kills before", b.core.Kills("n", b.snap()), "")
	b.apply(&fsm.Command{Body: &fsm.Command_CancelRun{CancelRun: &fsm.CancelRun{Run: "r"}}})
	b.want("kills of a cancelled run", b.core.Kills("n", b.snap()), "0-1@1")
	b.want("once", b.core.Kills("n", b.snap()), "")
}

func TestTakingBack(t *testing.T) {
	b := newBench(t)
	rec := b.hello("boot1", nil, nil, nil)
	b.place(0, 6, true)
	b.core.Next("n", 4, b.snap())
	if all := b.core.Withdraw("n", "r", 1, 1); len(all) != 1 {
		t.Fatal(all)
	} else {
		b.want("withdrawn", all[0].Free, "5@1")
		b.release(all)
	}
	ask := b.core.TakeBack("n", "r", 1, 2)
	if ask == nil || b.core.TakeBack("n", "r", 1, 2) != nil {
		t.Fatal("it is asked twice, or not once")
	}
	answer := &wire.TakenBack{Id: ask.Id, Dropped: list(2, 2, 1)[0]}
	all := b.core.TakenBack("n", answer)
	b.want("taken back", all[0].Free, "2-3@1")
	b.release(all)
	if got := b.core.TakenBack("n", answer); got != nil {
		t.Errorf("an answer counts twice: %v", got)
	}
	if got := b.snap().Run("r").Ranges(sheaf.PartitionPending).String(); got != "2-3,5-19" {
		t.Errorf("pending are %s", got)
	}
	// An answer on a stream that is over is no answer: the next Hello says it.
	ask = b.core.TakeBack("n", "r", 1, 1)
	b.core.Closed("n", rec.Stream)
	if got := b.core.TakenBack("n", &wire.TakenBack{Id: ask.Id, Dropped: list(1, 1, 1)[0]}); got != nil {
		t.Errorf("%v", got)
	}
	next := b.hello("boot1", list(0, 1, 1), nil, nil)
	b.core.Closed("n", rec.Stream) // the old stream's end comes late
	b.want("free", next.Release[0].Free, "1@1")
	b.place(7, 1, true)
	b.want("sent on the stream that is open", b.core.Next("n", 9, b.snap()), "4@1 7@1")
}

func TestHelloOfAnOldSession(t *testing.T) {
	b := newBench(t)
	b.register("boot1")
	for _, h := range []*wire.Hello{{Node: "n", Session: 1, BootId: "boot1"}, {Node: "n", Session: 2, BootId: "boot9"}, {Node: "x", Session: 1}} {
		if _, err := b.core.Hello(h, b.snap()); sheaf.ClassOf(err) != sheaf.Conflict {
			t.Errorf("%v: %v", h, err)
		}
	}
	b.apply(&fsm.Command{Body: &fsm.Command_NodeLost{NodeLost: &fsm.NodeLost{Node: "n", Session: 2}}})
	if _, err := b.core.Hello(&wire.Hello{Node: "n", Session: 2, BootId: "boot1"}, b.snap()); err == nil {
		t.Error("a node that was declared lost goes on without registering")
	}
}

// TestReleasesFitCommands: a node with scattered work is reconciled in several commands, of
// which the last opens the session.
func TestReleasesFitCommands(t *testing.T) {
	b := newBench(t)
	const n = 5000
	b.apply(&fsm.Command{Body: &fsm.Command_RegisterJob{RegisterJob: &fsm.RegisterJob{Run: "wide",
		JobJson: []byte(`{"name":"j","count":20000,"retry":{"attempts":1,"delay":"0s","max_delay":"0s"},"task":{"kill_timeout":"0s"},"failure":{"tolerate":0}}`)}}})
	p := &fsm.Placement{Run: "wide", Node: "n", Session: 1}
	for i := range uint32(n) {
		p.First, p.Count = append(p.First, 2*i), append(p.Count, 1)
	}
	b.apply(&fsm.Command{Body: &fsm.Command_ApplyPlan{ApplyPlan: &fsm.ApplyPlan{Placements: []*fsm.Placement{p}}}})
	b.register("boot2")
	rec := b.hello("boot2", nil, nil, nil)
	if len(rec.Release) < 2 {
		t.Fatalf("%d commands", len(rec.Release))
	}
	for i, r := range rec.Release {
		if r.Reconciled != (i == len(rec.Release)-1) {
			t.Errorf("command %d of %d: reconciled %v", i+1, len(rec.Release), r.Reconciled)
		}
	}
	b.release(rec.Release)
	if c := b.snap().Run("wide").Counts(); c.Assigned != 0 {
		t.Errorf("%+v", c)
	}
}
