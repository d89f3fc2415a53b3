package leader

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/sheaf-run/agent/server/fsm"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/sheaf"
)

// slowLog applies a command when it is let. As with raft, who gives up waiting does not keep a
// command that was taken from being applied.
type slowLog struct {
	machine    *fsm.Machine
	taken, let chan struct{}
}

func (l *slowLog) Apply(ctx context.Context, command []byte) (reply any, index uint64, err error) {
	l.taken <- struct{}{}
	applied := make(chan struct{})
	go func() {
		defer close(applied)
		<-l.let
		reply, err = l.machine.Apply(1, command)
	}()
	select {
	case <-applied:
		return reply, 1, err
	case <-ctx.Done():
		return nil, 0, ctx.Err()
	}
}

func (*slowLog) VerifyLeader(context.Context) error { return nil }
func (*slowLog) Barrier(context.Context) error      { return nil }

// TestAppliedForNobody guards against a run that is never placed because whoever submitted it was gone when it
// came into the log.
func TestAppliedForNobody(t *testing.T) {
	store := state.New(new(state.MemoryChunks))
	log := &slowLog{machine: fsm.New(store), taken: make(chan struct{}), let: make(chan struct{})}
	term := New(Config{Log: log, Store: store})
	ctx, leave := context.WithCancel(t.Context())
	told := make(chan error, 1)
	go func() {
		_, err := term.Apply(ctx, &fsm.Command{Body: &fsm.Command_RegisterJob{RegisterJob: &fsm.RegisterJob{
			Run: "r", JobJson: []byte(`{"name":"j","count":1,"retry":{"attempts":1}}`),
		}}})
		told <- err
	}()
	<-log.taken
	leave()
	if err := <-told; !errors.Is(err, context.Canceled) || sheaf.ClassOf(err) != sheaf.TimedOut {
		t.Errorf("who left is told %v", err)
	}
	close(log.let)
	patient, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	if lease, err := term.broker.Next(patient); err != nil || lease.Run != "r" {
		t.Errorf("the evaluation of the run is %+v, %v; the run is %+v", lease, err, store.Snapshot().Run("r"))
	}
}
