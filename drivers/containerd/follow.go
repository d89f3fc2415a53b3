package containerd

import (
	"context"
	"errors"
	"time"

	client "github.com/containerd/containerd"
	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/errdefs"

	"github.com/sheaf-run/agent/drivers/driverpb"
)

// lastOutput is how long the pipes of a container that has ended may take to end.
const lastOutput = 30 * time.Second

// end is how a container ended; err says that nobody knows.
type end struct {
	code uint32 // as the shim tells it: 128 and the number for a signal
	at   time.Time
	err  error
}

// follow sends a container's output on and its signals down until it ends. It
// returns nil when the client lets go first.
func (s *session) follow(e *execution, p pipes) *driverpb.Exited {
	conn, ctx, err := s.driver.daemon.connect(s.ctx)
	if err != nil { // it was made or recovered over this connection
		p.close()
		return &driverpb.Exited{ExitCode: -1, Error: err.Error(), StartedUnixMs: e.began.UnixMilli()}
	}
	reading, detach := context.WithCancel(s.client)
	defer detach()
	readers := s.forward(reading, e, p)
	ended := make(chan end, 1)
	go func() { ended <- wait(ctx, conn, e.container) }()
	var sent delivery
	var again <-chan time.Time
	for {
		select {
		case x := <-ended:
			if ctx.Err() != nil {
				continue // the session's end, told below
			}
			e.window.Open()
			late := time.AfterFunc(lastOutput, detach)
			readers.Wait()
			late.Stop()
			if s.client.Err() != nil {
				return nil
			}
			return report(e, x, sent)
		case <-e.stop.wake:
		case <-again:
		case <-ctx.Done():
			detach()
			readers.Wait()
			return nil
		}
		again = nil
		if next := sent.deliver(ctx, conn, e, time.Now()); next > 0 {
			again = time.After(next)
		}
	}
}

// wait waits for a container's end. A daemon that goes away meanwhile is waited for: its
// shims live on.
func wait(ctx context.Context, conn *client.Client, container string) end {
	var since time.Time // of the first of the errors in a row that are not the daemon's absence
	for {
		x, err := conn.TaskService().Wait(ctx, &tasks.WaitRequest{ContainerID: container})
		if err == nil {
			return end{code: x.GetExitStatus(), at: x.GetExitedAt().AsTime()}
		}
		err = errdefs.FromGRPC(err)
		switch {
		case errdefs.IsNotFound(err):
			return end{at: time.Now(), err: errors.New("containerd does not know any more how it ended")}
		case away(err):
			since = time.Time{}
		case since.IsZero():
			since = time.Now()
		case time.Since(since) > patience:
			return end{at: time.Now(), err: err}
		}
		if !pause(ctx) {
			return end{err: ctx.Err()}
		}
	}
}

// report is the Exited of a container that has ended and is still there.
func report(e *execution, x end, sent delivery) *driverpb.Exited {
	out := &driverpb.Exited{
		ExitCode: -1, StartedUnixMs: e.began.UnixMilli(), DurationMs: max(x.at.Sub(e.began).Milliseconds(), 0),
	}
	if x.err != nil {
		out.Error = x.err.Error()
		return out
	}
	used := usageOf(e.container)
	out.CpuMs, out.PeakMemoryBytes = (used.cpu + time.Millisecond - 1).Milliseconds(), used.peak
	failed := x.code != 0 // one that coped with a limit did not fail of it
	out.OutOfMemory, out.OutOfPids = failed && used.oomKills > 0, failed && used.pidsHits > 0
	if out.Signal = sent.endedBy(x.code); out.Signal == "" {
		out.ExitCode = int32(x.code)
	}
	return out
}
