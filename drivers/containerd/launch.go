package containerd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	client "github.com/containerd/containerd"
	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/api/types/task"
	"github.com/containerd/containerd/containers"
	"github.com/containerd/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/sheaf-run/agent/drivers"
	"github.com/sheaf-run/agent/drivers/driverpb"
)

const (
	// shim is the runtime that containerd starts for a container.
	shim = "io.containerd.runc.v2"
	// specType is how containerd knows a container's spec in JSON.
	specType = "types.containerd.io/opencontainers/runtime-spec/1/Spec"
	// creation bounds the making of one container on a machine that is very busy.
	creation = 2 * time.Minute
)

// errStopped: the client wanted an end before there was a beginning.
var errStopped = errors.New("it was stopped before it began")

// launch makes the container, starts it, and follows it to its end. A container whose
// making has begun is made, so that no half of one is left.
func (s *session) launch(e *execution) *driverpb.Exited {
	select {
	case s.driver.turns <- struct{}{}:
	case <-e.stop.wake:
		return notStarted(errStopped)
	case <-s.ctx.Done():
		return notStarted(errors.New("the driver was closed"))
	}
	ctx, stop := context.WithTimeout(context.WithoutCancel(s.client), creation)
	defer stop()
	p, err := s.create(ctx, e)
	s.driver.over()
	if err != nil {
		return notStarted(err)
	}
	if !s.started(e) { // the client will not know of it
		p.close()
		s.driver.clear(s.client, e.container)
		return nil
	}
	return s.follow(e, p)
}

func notStarted(err error) *driverpb.Exited {
	return &driverpb.Exited{ExitCode: -1, NotStarted: true, Error: explain(err), StartedUnixMs: time.Now().UnixMilli()}
}

// create makes the container, waiting for a daemon that restarts.
func (s *session) create(ctx context.Context, e *execution) (pipes, error) {
	until := time.Now().Add(patience)
	for {
		conn, ctx, err := s.driver.daemon.connect(ctx)
		if err != nil {
			return pipes{}, err
		}
		p, err := s.createOnce(ctx, conn, e)
		if err == nil {
			return p, nil
		}
		if !away(err) && !errdefs.IsAlreadyExists(err) || s.ctx.Err() != nil || time.Now().After(until) || e.stop.asked() != 0 || !pause(ctx) {
			return pipes{}, err
		}
		if err := s.driver.remove(ctx, conn, e.container); err != nil {
			return pipes{}, err
		}
	}
}

// createOnce makes the container's record first and removes it last: it holds the snapshot against
// containerd's collector, and whatever else there may be is found by it.
func (s *session) createOnce(ctx context.Context, conn *client.Client, e *execution) (_ pipes, err error) {
	var conf config
	if err := drivers.DecodeConfig(Name, e.start.GetConfigJson(), &conf); err != nil {
		return pipes{}, err
	}
	t, err := s.driver.ready(e.start.GetHandle())
	if err != nil {
		return pipes{}, err
	}
	s.driver.mu.Lock()
	owner, dir := s.driver.owner, s.driver.pipes
	s.driver.mu.Unlock()
	spec, err := t.make(conf, e.start, e.container)
	if err != nil {
		return pipes{}, err
	}
	root, err := record(ctx, conn, t, spec, e.container, map[string]string{labelExecution: e.id, labelOwner: owner})
	if err != nil {
		return pipes{}, err
	}
	p, opened, err := makePipes(dir, e.container)
	if err != nil {
		return pipes{}, err
	}
	defer opened()
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	paths := pipePaths(dir, e.container)
	req := &tasks.CreateTaskRequest{ContainerID: e.container, Stdout: paths[0], Stderr: paths[1], Rootfs: root}
	made, err := conn.TaskService().Create(ctx, req)
	if err != nil {
		return pipes{}, errdefs.FromGRPC(err)
	}
	if e.stop.asked() != 0 {
		// Its deletion would wait two seconds for the output of what never began.
		_, _ = conn.TaskService().Kill(ctx, &tasks.KillRequest{ContainerID: e.container, Signal: uint32(unix.SIGKILL)})
		return pipes{}, errStopped
	}
	e.pid, e.began = made.GetPid(), time.Now()
	if _, err := conn.TaskService().Start(ctx, &tasks.StartRequest{ContainerID: e.container}); err != nil {
		return pipes{}, errdefs.FromGRPC(err)
	}
	return p, nil
}

// record makes a container's record, and its root, which is to be mounted so.
func record(ctx context.Context, conn *client.Client, t *template, spec *specs.Spec, id string, labels map[string]string) ([]*types.Mount, error) {
	text, err := json.Marshal(spec)
	if err != nil {
		return nil, fmt.Errorf("write the container's spec: %w", err)
	}
	if _, err := conn.ContainerService().Create(ctx, containers.Container{
		ID: id, Image: t.image, Labels: labels,
		Runtime: containers.RuntimeInfo{Name: shim}, Spec: &anypb.Any{TypeUrl: specType, Value: text},
		Snapshotter: snapshotter, SnapshotKey: id,
	}); err != nil {
		return nil, fmt.Errorf("make the container: %w", err)
	}
	made, err := conn.SnapshotService(snapshotter).Prepare(ctx, id, t.layers)
	if err != nil {
		return nil, fmt.Errorf("make the container's root: %w", err)
	}
	var root []*types.Mount
	for _, m := range made {
		root = append(root, &types.Mount{Type: m.Type, Source: m.Source, Target: m.Target, Options: m.Options})
	}
	return root, nil
}

// resume takes up a container that an earlier process started.
func (s *session) resume(e *execution) *driverpb.Exited {
	s.driver.mu.Lock()
	dir := s.driver.pipes
	s.driver.mu.Unlock()
	p, err := findPipes(dir, e.container)
	if err != nil {
		slog.Warn("output of a container cannot be read", "execution", e.id, "error", err)
	}
	if s.endedUnread(e) {
		data := []byte(unreadMark)
		if e.window.Take(s.client, int64(len(data))) == nil {
			s.emit(&driverpb.Event{Body: &driverpb.Event_Log{Log: &driverpb.Log{Execution: e.id, Stderr: true, Data: data}}})
		}
	}
	return s.follow(e, p)
}

// endedUnread reports whether a container had ended before its pipes were opened
// again. One that ends just then is marked for nothing; none goes unmarked.
func (s *session) endedUnread(e *execution) bool {
	conn, ctx, err := s.driver.daemon.connect(s.ctx)
	if err != nil {
		return true
	}
	got, err := conn.TaskService().Get(ctx, &tasks.GetRequest{ContainerID: e.container})
	return err != nil || got.GetProcess().GetStatus() == task.Status_STOPPED
}

// unreadMark stands in the log of a container that ended while nobody read its
// pipes: what they still held went with them.
const unreadMark = "\n[… it ended while no driver was there to read it: what it printed last may be missing here and in stdout …]\n"
