package leader

import (
	"context"
	"log/slog"
	"testing"

	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/server/fsm"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/sheaf"
)

// plainLog applies what it is given; before is called with each command first.
type plainLog struct {
	machine *fsm.Machine
	index   uint64
	before  func(command []byte)
}

func (l *plainLog) Apply(_ context.Context, command []byte) (any, uint64, error) {
	if l.before != nil {
		l.before(command)
	}
	l.index++
	reply, err := l.machine.Apply(l.index, command)
	return reply, l.index, err
}

func (*plainLog) VerifyLeader(context.Context) error { return nil }
func (*plainLog) Barrier(context.Context) error      { return nil }

// TestRefusedDeletion guards against runs that nobody deletes any more, since the entry that was to delete them
// was refused for the sake of one that had been retried meanwhile.
func TestRefusedDeletion(t *testing.T) {
	store := state.New(new(state.MemoryChunks))
	log := &plainLog{machine: fsm.New(store)}
	term := New(Config{Log: log, Store: store, Logger: slog.New(slog.DiscardHandler)})
	apply := func(c *fsm.Command) {
		t.Helper()
		if _, err := term.apply(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range []string{"old", "new"} {
		apply(&fsm.Command{Body: &fsm.Command_RegisterJob{RegisterJob: &fsm.RegisterJob{Run: id, JobJson: []byte(`{"name":"j","count":1,"retry":{"attempts":1}}`)}}})
		apply(&fsm.Command{Body: &fsm.Command_CancelRun{CancelRun: &fsm.CancelRun{Run: id}}})
	}
	log.before = func([]byte) {
		log.before = nil
		if _, err := term.append(t.Context(), encoded(t, &fsm.Command{TimeMs: term.NowMs(), Body: &fsm.Command_RetryRun{RetryRun: &fsm.RetryRun{Run: "new"}}})); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := term.retain(t.Context()); err != nil {
		t.Fatal(err)
	}
	snap := store.Snapshot()
	if r := snap.Run("new"); r == nil || r.Status.Terminal() {
		t.Fatalf("the run that was retried is %+v", r)
	}
	if r := snap.Run("old"); r != nil || snap.Tombstone(sheaf.RunID("old")) == nil {
		t.Errorf("the other one is there still: %+v", r)
	}
}

// TestReportsAfterTheEnd guards against what is kept of runs that are over because a report of them came late:
// the answers to a run's last results are told to the leader after the run has ended.
func TestReportsAfterTheEnd(t *testing.T) {
	store := state.New(new(state.MemoryChunks))
	term := New(Config{Log: &plainLog{machine: fsm.New(store)}, Store: store, Logger: slog.New(slog.DiscardHandler)})
	apply := func(c *fsm.Command) {
		t.Helper()
		if _, err := term.apply(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range []string{"live", "over"} {
		apply(&fsm.Command{Body: &fsm.Command_RegisterJob{RegisterJob: &fsm.RegisterJob{Run: id, JobJson: []byte(`{"name":"j","count":9,"retry":{"attempts":1}}`)}}})
	}
	apply(&fsm.Command{Body: &fsm.Command_CancelRun{CancelRun: &fsm.CancelRun{Run: "over"}}})
	reports := map[string]func(run string){
		"started": func(run string) {
			term.Started("n", &wire.Executions{Run: run, First: []uint32{3}, Count: []uint32{1}, Attempt: []uint32{1}})
		},
		"ended": func(run string) {
			term.Ended(&wire.Results{Run: run, Node: "n", Partition: []uint32{3}, Attempt: []uint32{1}, Failure: []byte{byte(sheaf.FailExit)}},
				&wire.Answers{Verdict: []byte{byte(wire.Verdict_VERDICT_RECORDED)}})
		},
		"pulse": func(run string) {
			term.Pulse("n", &wire.Pulse{Runs: []*wire.RunRate{{Run: run, Slots: 2, Rate: 10}}})
		},
	}
	for name, report := range reports {
		for _, run := range []string{"over", "deleted long ago"} {
			report(run)
			if len(term.track.runs) != 0 || len(term.tails.runs) != 0 || term.track.blame.Waits(sheaf.RunID(run)) {
				t.Errorf("%s of a run that is %s is kept: %v, %v", name, run, term.track.runs, term.tails.runs)
			}
		}
		report("live")
		if term.track.runs["live"] == nil {
			t.Errorf("%s of a live run is not kept", name)
		}
		term.track.forget("live")
		term.tails.forget("live")
	}
}

func encoded(t *testing.T, c *fsm.Command) []byte {
	t.Helper()
	b, err := fsm.Encode(c)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
