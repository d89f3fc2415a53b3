package containerd

import (
	"context"
	"log/slog"
	"os"
	"time"

	client "github.com/containerd/containerd"
	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// removal bounds how long a container's removal is tried; the next Recover ends
// what is left then. It is as long as a container's making may take.
const removal = 2 * time.Minute

// clear removes what there is of a container, in its turn, and also when ctx has ended.
func (d *Driver) clear(ctx context.Context, container string) {
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), removal)
	defer stop()
	conn, ctx, err := d.daemon.connect(ctx)
	if err == nil && d.turn(ctx) {
		err = d.remove(ctx, conn, container)
		d.over()
	}
	if err != nil {
		slog.Warn("container not removed", "container", container, "error", err)
	}
}

// remove ends a container's program if it runs and removes all that there is of the
// container, its record last. It waits for a daemon that is away.
func (d *Driver) remove(ctx context.Context, conn *client.Client, container string) error {
	d.mu.Lock()
	dir := d.pipes
	d.mu.Unlock()
	for {
		err := removeOnce(ctx, conn, container)
		if err == nil {
			for _, path := range pipePaths(dir, container) {
				_ = os.Remove(path) // it may not have been made
			}
			return nil
		}
		if !away(err) || !pause(ctx) {
			return err
		}
	}
}

func removeOnce(ctx context.Context, conn *client.Client, container string) error {
	service := conn.TaskService()
	if _, err := service.Delete(ctx, &tasks.DeleteTaskRequest{ContainerID: container}); isError(err) {
		if _, err := service.Kill(ctx, &tasks.KillRequest{ContainerID: container, Signal: uint32(unix.SIGKILL), All: true}); isError(err) {
			return errdefs.FromGRPC(err)
		}
		if _, err := service.Wait(ctx, &tasks.WaitRequest{ContainerID: container}); isError(err) {
			return errdefs.FromGRPC(err)
		}
		if _, err := service.Delete(ctx, &tasks.DeleteTaskRequest{ContainerID: container}); isError(err) {
			return errdefs.FromGRPC(err)
		}
	}
	if err := conn.SnapshotService(snapshotter).Remove(ctx, container); err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	if err := conn.ContainerService().Delete(ctx, container); err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	return nil
}

// isError passes over what says that there is nothing of that name.
func isError(err error) bool {
	return err != nil && !errdefs.IsNotFound(errdefs.FromGRPC(err))
}
