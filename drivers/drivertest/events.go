package drivertest

import (
	"github.com/sheaf-run/agent/drivers"
	"github.com/sheaf-run/agent/drivers/driverpb"
)

// event takes in what the driver sent, checks its place in the order, and
// gives the acknowledgement that is due.
func (s *Session) event(ev *driverpb.Event) (ack *driverpb.Command) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := idOf(ev)
	r := s.runs[id]
	if r == nil {
		s.t.Errorf("event of an execution that was not started: %v", ev)
		return nil
	}
	if r.Exited != nil {
		s.t.Errorf("event of %s after its Exited: %v", id, ev)
		return nil
	}
	switch body := ev.GetBody().(type) {
	case *driverpb.Event_Started:
		if r.Started != nil || r.bytes > 0 {
			s.t.Errorf("second or late Started of %s", id)
		}
		r.Started = body.Started
	case *driverpb.Event_Log:
		data := body.Log.GetData()
		if len(data) == 0 || len(data) > drivers.MaxLog {
			s.t.Errorf("log of %s has %d bytes, want 1 to %d", id, len(data), drivers.MaxLog)
		}
		if body.Log.GetStderr() {
			r.Stderr = append(r.Stderr, data...)
		} else {
			r.Stdout = append(r.Stdout, data...)
		}
		r.bytes += int64(len(data))
		r.unacked += int64(len(data))
		if !r.hold {
			ack = flow(id, r.unacked)
			r.unacked = 0
		}
	case *driverpb.Event_Exited:
		r.Exited = body.Exited
		close(r.done)
	}
	close(r.change)
	r.change = make(chan struct{})
	return ack
}

func idOf(ev *driverpb.Event) string {
	switch body := ev.GetBody().(type) {
	case *driverpb.Event_Started:
		return body.Started.GetExecution()
	case *driverpb.Event_Log:
		return body.Log.GetExecution()
	case *driverpb.Event_Exited:
		return body.Exited.GetExecution()
	}
	return ""
}

func flow(id string, n int64) *driverpb.Command {
	return &driverpb.Command{Body: &driverpb.Command_Flow{Flow: &driverpb.Flow{Execution: id, Bytes: n}}}
}
