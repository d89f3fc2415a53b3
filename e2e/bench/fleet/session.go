package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/sheaf-run/agent/client/execution"
	"github.com/sheaf-run/agent/client/merge"
	"github.com/sheaf-run/agent/client/session"
	"github.com/sheaf-run/agent/data/output"
	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/sheaf"
)

// noFiles is the digest of an output of no files.
var noFiles = output.Digest(nil)

// Node implements session.Handler.
func (m *member) Node() ([]byte, error) { return m.node() }

// ClusterID implements session.Handler.
func (m *member) ClusterID() string { return m.cluster }

// Joined implements session.Handler.
func (m *member) Joined(id string) error {
	m.cluster = id
	return nil
}

// Hello implements session.Handler.
func (m *member) Hello(ctx context.Context, number uint64, out *session.Outbox) (*wire.Hello, error) {
	var h *wire.Hello
	err := m.ask(ctx, func() {
		l := m.core.Hello()
		h = &wire.Hello{Node: string(m.id), Queued: l.Queued, Executing: l.Executing, Finished: l.Finished}
		m.out, m.num = out, number
	})
	return h, err
}

// Closed implements session.Handler.
func (m *member) Closed(ctx context.Context, out *session.Outbox) {
	_ = m.ask(ctx, func() { // an error says that the loop is over
		if m.out == out {
			m.out = nil
		}
	})
}

// Receive implements session.Handler.
func (m *member) Receive(ctx context.Context, x *wire.FromServer) error {
	var err error
	if asked := m.ask(ctx, func() { err = m.receive(x) }); asked != nil {
		return asked
	}
	return err
}

func (m *member) receive(x *wire.FromServer) error {
	switch b := x.GetBody().(type) {
	case *wire.FromServer_Welcome:
		m.lease = time.Duration(b.Welcome.GetLeaseMs()) * time.Millisecond
		m.core.Welcome(b.Welcome, m.now)
		m.pulse = time.Time{}
		m.beat()
		m.once.Do(func() { close(m.welcomed) })
	case *wire.FromServer_Run:
		return m.addRun(b.Run)
	case *wire.FromServer_Assign:
		if !m.core.Assign(b.Assign, m.now) {
			return fmt.Errorf("run %s was assigned and not described", b.Assign.GetRun())
		}
	case *wire.FromServer_Kill:
		m.core.Kill(b.Kill, m.now)
	case *wire.FromServer_TakeBack:
		dropped := m.core.TakeBack(sheaf.RunID(b.TakeBack.GetRun()), b.TakeBack.GetGeneration(), b.TakeBack.GetMost())
		m.send(&wire.FromClient{Body: &wire.FromClient_TakenBack{TakenBack: &wire.TakenBack{Id: b.TakeBack.GetId(), Dropped: dropped}}})
	case *wire.FromServer_Answers:
		m.core.Answered(b.Answers)
	case *wire.FromServer_Lease:
		m.lease = time.Duration(b.Lease.GetLeaseMs()) * time.Millisecond
		m.core.Lease(m.now.Add(m.lease))
		m.core.Gather(time.Duration(b.Lease.GetGatherMs()) * time.Millisecond)
	case *wire.FromServer_Fetch:
		m.send(&wire.FromClient{Body: &wire.FromClient_Fetched{Fetched: &wire.Fetched{Id: b.Fetch.GetId(), Error: "a simulated client keeps nothing"}}})
	case *wire.FromServer_End:
		m.core.RunEnd(sheaf.RunID(b.End.GetRun()), b.End.GetDelete(), m.now)
		if b.End.GetDelete() {
			m.send(&wire.FromClient{Body: &wire.FromClient_Deleted{Deleted: &wire.Deleted{Runs: []string{b.End.GetRun()}}}})
		}
	}
	return nil
}

func (m *member) addRun(spec *wire.RunSpec) error {
	job := &sheaf.Job{}
	if err := json.Unmarshal(spec.GetJobJson(), job); err != nil {
		return fmt.Errorf("read the job of run %s: %w", spec.GetRun(), err)
	}
	r := m.core.AddRun(execution.Spec{
		ID: sheaf.RunID(spec.GetRun()), Generation: spec.GetGeneration(), Driver: job.Task.Driver,
		Need: execution.NeedOf(job.Task.Resources), Weight: int(spec.GetPriority()), Limits: job.Task.Resources,
	}, false)
	r.Data = job
	return nil
}

// beginOwn merges, as any client does: outputs of no files need not be read.
func (m *member) beginOwn(x *execution.Execution) {
	ctx, cancel := context.WithCancel(m.ctx)
	x.Data = cancel
	job := x.Run.Data.(*sheaf.Job)
	run, generation, attempt := x.Run.ID, x.Generation, x.Attempt
	m.jobs.Go(func() {
		defer cancel()
		err := m.merge(ctx, x.Kind, job, run, generation, attempt)
		m.post(func() {
			if err == nil || errors.Is(err, merge.ErrSuperseded) || ctx.Err() != nil {
				m.core.OwnSealed(x)
				return
			}
			m.core.OwnFailed(x, sheaf.OutcomeFailed, sheaf.FailDriver, err.Error(), m.now)
		})
	})
}

func (m *member) merge(ctx context.Context, kind wire.Kind, job *sheaf.Job, run sheaf.RunID, generation, attempt uint32) error {
	if kind != wire.Kind_KIND_MERGE {
		return &sheaf.Error{Class: sheaf.Unsupported, Msg: "a simulated client has no files to split"}
	}
	s, err := openStore(m.dir)
	if err != nil {
		return err
	}
	defer s.close()
	st, err := s.Run(run)
	if err != nil {
		return fmt.Errorf("keep what is merged: %w", err)
	}
	merging := merge.Merge{
		Run: run, Generation: generation, Attempt: attempt, Node: m.id, Job: job, Dir: s.dir, Store: st, Leader: m.session.Leader, Logger: m.log,
		Peer: func(id sheaf.NodeID) (wire.NodesClient, func(), error) {
			return nil, nil, &sheaf.Error{Class: sheaf.NotFound, Msg: fmt.Sprintf("node %s is simulated and keeps nothing", id)}
		},
	}
	return merging.Do(ctx)
}
