package worker

import (
	"github.com/sheaf-run/agent/client/execution"
	"github.com/sheaf-run/agent/client/sandbox"
	"github.com/sheaf-run/agent/client/secret"
	"github.com/sheaf-run/agent/data/output/store"
	"github.com/sheaf-run/agent/drivers/driverpb"
	"github.com/sheaf-run/agent/sheaf"
)

// flowEvery is how many log bytes are acknowledged at once: well below what a
// driver may have unacknowledged, so that it never waits, and more than most tasks print.
const flowEvery = 256 << 10

// task is what the loop keeps of an execution that has directories or logs;
// most have neither, and none of these.
type task struct {
	space     *sandbox.Space
	logs      *store.Logs
	unacked   int64
	masks     [2]*secret.Masker // of stdout and stderr, in runs with secrets
	held      []piece           // what cannot be masked yet
	heldBytes int               // of what came; past maxHeld nothing more is held
	manifest  []byte            // of its outputs, encoded
}

// taskOf gives the task of x, made where it is missing.
func taskOf(x *execution.Execution) *task {
	if t, ok := x.Data.(*task); ok {
		return t
	}
	t := &task{}
	x.Data = t
	return t
}

// event handles what a driver reports. A driver is not trusted with more than
// the executions that it has: what it names and does not run is passed over.
func (w *Worker) event(ev *driverpb.Event) {
	switch b := ev.GetBody().(type) {
	case *driverpb.Event_Started:
		if len(b.Started.GetState()) > 0 {
			w.core.Started(b.Started.GetExecution(), b.Started.GetState())
		}
	case *driverpb.Event_Log:
		w.logged(b.Log)
	case *driverpb.Event_Exited:
		w.exited(b.Exited)
	}
}

func (w *Worker) logged(l *driverpb.Log) {
	x := w.core.Find(l.GetExecution())
	if x == nil || x.Phase != execution.Running {
		return
	}
	t := taskOf(x)
	if !w.openLogs(x, t) {
		return
	}
	w.masked(x, t, l.GetStderr(), l.GetData())
	if t.unacked += int64(len(l.GetData())); t.unacked >= flowEvery {
		e := dataOf(x.Run).engine
		e.driver.Send(&driverpb.Command{Body: &driverpb.Command_Flow{Flow: &driverpb.Flow{Execution: x.ID, Bytes: t.unacked}}})
		t.unacked = 0
	}
}

// openLogs makes the logs of x, with its first byte or when it is no longer young.
func (w *Worker) openLogs(x *execution.Execution, t *task) bool {
	if t.logs != nil {
		return true
	}
	logs, err := dataOf(x.Run).store.Logs(keyOf(x.Partition, x.Attempt))
	if err != nil {
		w.log.Warn("logs cannot be kept", "execution", x.ID, "error", err)
		return false
	}
	t.logs = logs
	return true
}

func keyOf(partition, attempt uint32) store.Key {
	return store.Key{Partition: int(partition), Attempt: attempt}
}

func (w *Worker) exited(ev *driverpb.Exited) {
	x := w.core.Exited(ev)
	if x == nil {
		return
	}
	w.endLogs(x)
}

// endLogs takes the last lines of stderr into the result of a failure.
func (w *Worker) endLogs(x *execution.Execution) {
	t, ok := x.Data.(*task)
	if ok {
		w.endMasks(x, t)
	}
	dataOf(x.Run).maskText(x.Result)
	if !ok || t.logs == nil || x.Result == nil || x.Result.Outcome == sheaf.OutcomeSucceeded || x.Result.Text == nil {
		return
	}
	x.Result.Text.Stderr = execution.LastLines(t.logs.Tail(true, execution.MaxStderr))
}
