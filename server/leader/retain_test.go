package leader

import (
	"context"
	"log/slog"
	"testing"

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

func encoded(t *testing.T, c *fsm.Command) []byte {
	t.Helper()
	b, err := fsm.Encode(c)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
