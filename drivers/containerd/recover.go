package containerd

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	client "github.com/containerd/containerd"
	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types/task"
	"github.com/containerd/containerd/containers"
	"github.com/containerd/containerd/errdefs"
	"golang.org/x/sync/errgroup"

	"github.com/sheaf-run/agent/drivers/driverpb"
)

// Recover takes up the containers of ours that the client knows and whose program was started, also
// when it has ended since, and removes every other one of ours. Without a daemon it is an
// error when the client knows of some; otherwise what there may be is removed by the first Prepare.
func (d *Driver) Recover(ctx context.Context, req *driverpb.RecoverRequest) (*driverpb.RecoverResponse, error) {
	if err := d.settle(req.GetStateDir()); err != nil {
		return nil, err
	}
	d.mu.Lock()
	d.recovered, d.unswept = nil, true
	d.mu.Unlock()
	conn, ctx, err := d.daemon.connect(ctx)
	if err == nil {
		err = d.sweep(ctx, conn, req.GetKnown())
	}
	out := &driverpb.RecoverResponse{}
	if err != nil {
		if len(req.GetKnown()) > 0 {
			return nil, err
		}
		return out, nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, e := range d.recovered {
		out.Running = append(out.Running, e.id)
	}
	return out, nil
}

// sweepOnce does what a Recover without a daemon could not.
func (d *Driver) sweepOnce(ctx context.Context, conn *client.Client) error {
	d.sweeping.Lock()
	defer d.sweeping.Unlock()
	d.mu.Lock()
	unswept := d.unswept && d.owner != ""
	d.mu.Unlock()
	if !unswept {
		return nil
	}
	return d.sweep(ctx, conn, nil)
}

// sweep takes up the known and removes the rest, with the pipes of what is no more.
func (d *Driver) sweep(ctx context.Context, conn *client.Client, known []*driverpb.Known) error {
	d.mu.Lock()
	owner, dir := d.owner, d.pipes
	d.mu.Unlock()
	ours, err := conn.ContainerService().List(ctx, fmt.Sprintf("labels.%q==%s", labelOwner, owner))
	if err != nil {
		return fmt.Errorf("list containers: %w", err)
	}
	byContainer := make(map[string]*driverpb.Known, len(known))
	for _, k := range known {
		byContainer[d.containerID(k.GetExecution())] = k
	}
	started, err := startedTasks(ctx, conn, byContainer)
	if err != nil {
		return fmt.Errorf("list what runs: %w", err)
	}
	var g errgroup.Group
	g.SetLimit(atOnce)
	var found []*execution
	for _, c := range ours {
		k, p := byContainer[c.ID], started[c.ID]
		if k != nil && p != nil {
			found = append(found, &execution{id: k.GetExecution(), container: c.ID, pid: p.GetPid(), began: begin(k, c), stop: newStop()})
			continue
		}
		g.Go(func() error {
			if err := d.remove(ctx, conn, c.ID); err != nil {
				return fmt.Errorf("remove container %s: %w", c.ID, err)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	d.mu.Lock()
	d.recovered, d.unswept = found, false
	d.mu.Unlock()
	return removePipes(dir, found)
}

// startedTasks are the programs that run or ran, by container. Where a shim of a known one does not tell within the
// short time that containerd gives it, it is asked again: what runs must not be taken for what never began.
func startedTasks(ctx context.Context, conn *client.Client, known map[string]*driverpb.Known) (map[string]*task.Process, error) {
	var list []*task.Process
	for until := time.Now().Add(patience); ; {
		resp, err := conn.TaskService().List(ctx, &tasks.ListTasksRequest{})
		if err != nil {
			return nil, errdefs.FromGRPC(err)
		}
		list = resp.GetTasks()
		silent := func(p *task.Process) bool { return known[p.GetID()] != nil && p.GetStatus() == task.Status_UNKNOWN }
		if !slices.ContainsFunc(list, silent) || time.Now().After(until) || !pause(ctx) {
			break
		}
	}
	m := make(map[string]*task.Process, len(list))
	for _, p := range list {
		if p.GetStatus() != task.Status_CREATED && p.GetStatus() != task.Status_UNKNOWN {
			m[p.GetID()] = p
		}
	}
	return m, nil
}

// begin is when a container's program began, as Started told it; or else about then.
func begin(k *driverpb.Known, c containers.Container) time.Time {
	var st state
	if err := json.Unmarshal(k.GetState(), &st); err != nil || st.BeganMs <= 0 {
		return c.CreatedAt
	}
	return time.UnixMilli(st.BeganMs)
}

func removePipes(dir string, keep []*execution) error {
	files, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("list the output pipes: %w", err)
	}
	for _, f := range files {
		container := strings.TrimSuffix(f.Name(), filepath.Ext(f.Name()))
		if slices.ContainsFunc(keep, func(e *execution) bool { return e.container == container }) {
			continue
		}
		if err := os.Remove(filepath.Join(dir, f.Name())); err != nil {
			return fmt.Errorf("remove an output pipe: %w", err)
		}
	}
	return nil
}
