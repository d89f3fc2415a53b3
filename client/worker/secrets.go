package worker

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sheaf-run/agent/client/execution"
	"github.com/sheaf-run/agent/client/secret"
	"github.com/sheaf-run/agent/drivers/driverpb"
	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/sheaf"
)

const (
	// secretsPatience is how long preparing a run waits for servers that cannot give
	// its secrets: about the time that they need for a new leader, twice.
	secretsPatience = 20 * time.Second
	// secretsPause is the wait between two questions.
	secretsPause = time.Second
	// maxHeld bounds what is kept of a log that cannot be masked yet, as the flow of logs
	// does already for a driver that keeps to it.
	maxHeld = 2 << 20
)

// secrets are what a run was given; unasked in runs that use none.
type secrets struct {
	set    *secret.Set
	mounts []*driverpb.Mount
	// lost: they cannot be had any more, and logs cannot be masked.
	lost bool
}

// readSecrets asks the leader for the secrets of a run, until patience is over.
func (w *Worker) readSecrets(ctx context.Context, run sheaf.RunID, job *sheaf.Job, patience time.Duration) (*secret.Set, error) {
	until := time.Now().Add(patience)
	for {
		set, err := w.askSecrets(ctx, run, job)
		if err == nil || sheaf.ClassOf(err) != sheaf.Unavailable || time.Now().After(until) {
			return set, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(secretsPause):
		}
	}
}

func (w *Worker) askSecrets(ctx context.Context, run sheaf.RunID, job *sheaf.Job) (*secret.Set, error) {
	leader, session, err := w.session.Leader(ctx)
	if err != nil {
		return nil, err
	}
	resp, err := leader.ReadSecrets(ctx, &wire.ReadSecretsRequest{Run: string(run), Node: string(w.cfg.Place.NodeID), Session: session})
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		class := sheaf.Unavailable
		switch status.Code(err) {
		case codes.NotFound:
			class = sheaf.NotFound
		case codes.PermissionDenied:
			class = sheaf.Denied
		case codes.Internal, codes.InvalidArgument:
			class = sheaf.Internal
		}
		return nil, &sheaf.Error{Class: class, Field: "task.secrets", Msg: "read the secrets of the job: " + status.Convert(err).Message()}
	}
	return secret.NewSet(job, resp.GetSecrets())
}

// equip reads a run's secrets and makes their files.
func (w *Worker) equip(ctx context.Context, r *execution.Run, job *sheaf.Job) (secrets, error) {
	if !secret.Needed(job) {
		return secrets{}, nil
	}
	set, err := w.readSecrets(ctx, r.Of(), job, secretsPatience)
	if err != nil {
		return secrets{}, err
	}
	mounts, err := w.cfg.Secrets.Make(r.ID, &job.Task, set)
	return secrets{set: set, mounts: mounts}, err
}

// recoverSecrets reads the secrets of a run whose executions were re-attached: they need none,
// and their logs wait to be masked.
func (w *Worker) recoverSecrets(r *execution.Run) {
	d := dataOf(r)
	if !secret.Needed(d.job) || d.secrets.set != nil || d.reading {
		return
	}
	d.reading = true
	ctx, job := w.ctx, d.job
	w.jobs.Go(func() {
		set, err := w.readSecrets(ctx, r.Of(), job, 1<<62)
		w.post(func() {
			d.reading = false
			if d.secrets.set == nil && err == nil {
				d.secrets.set = set
			}
			if d.secrets.set == nil {
				if ctx.Err() != nil {
					return
				}
				w.log.Warn("secrets of a re-attached run cannot be read: its logs are withheld", "run", r.ID, "error", err)
				d.secrets.lost = true
			}
			for x := range r.Executions {
				if t, ok := x.Data.(*task); ok {
					w.writeHeld(x, t)
				}
			}
		})
	})
}

// masked writes a piece of a log without its secrets.
func (w *Worker) masked(x *execution.Execution, t *task, stderr bool, data []byte) {
	d := dataOf(x.Run)
	if t.logs == nil {
		return
	}
	if d.secrets.set == nil && secret.Needed(d.job) {
		if t.heldBytes += len(data); t.heldBytes <= maxHeld && !d.secrets.lost {
			t.held = append(t.held, piece{stderr, append([]byte(nil), data...)})
		}
		return
	}
	i := 0
	if stderr {
		i = 1
	}
	if t.masks[i] == nil {
		t.masks[i] = d.secrets.set.Masker()
	}
	w.writeLog(x, t, stderr, t.masks[i].Write(data))
}

func (w *Worker) writeLog(x *execution.Execution, t *task, stderr bool, data []byte) {
	if len(data) == 0 {
		return
	}
	if err := t.logs.Write(stderr, data); err != nil {
		w.log.Warn("log not kept", "execution", x.ID, "error", err)
	}
}

// writeHeld writes what waited to be masked.
func (w *Worker) writeHeld(x *execution.Execution, t *task) {
	held, bytes := t.held, t.heldBytes
	t.held, t.heldBytes = nil, 0
	if dataOf(x.Run).secrets.set == nil || bytes > maxHeld {
		if bytes > 0 && t.logs != nil {
			w.writeLog(x, t, true, []byte(secret.Withheld))
		}
		return
	}
	for _, p := range held {
		w.masked(x, t, p.stderr, p.data)
	}
}

// endMasks writes what was held back of x's logs; it has ended.
func (w *Worker) endMasks(x *execution.Execution, t *task) {
	w.writeHeld(x, t)
	for i, m := range t.masks {
		if m != nil && t.logs != nil {
			w.writeLog(x, t, i == 1, m.End())
		}
	}
}

// piece is a piece of a log.
type piece struct {
	stderr bool
	data   []byte
}

// maskText takes secrets out of what is said of an execution.
func (d *runData) maskText(r *execution.Result) {
	if r != nil && r.Text != nil {
		r.Text.Message = d.secrets.set.Mask(r.Text.Message)
	}
}

// maskError takes secrets out of an error, whose class stays.
func (s secrets) maskError(err error) error {
	if err == nil || s.set == nil {
		return err
	}
	text := err.Error()
	if clean := s.set.Mask(text); clean != text {
		return fmt.Errorf("%w", &sheaf.Error{Class: sheaf.ClassOf(err), Msg: clean})
	}
	return err
}

// forgetSecrets removes a run's files, after what runs for them has ended.
func (w *Worker) forgetSecrets(run sheaf.RunID) {
	if err := w.cfg.Secrets.Remove(run); err != nil {
		w.log.Warn("files of secrets not removed", "run", run, "error", err)
	}
}
