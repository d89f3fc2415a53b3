package containerd

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	client "github.com/containerd/containerd"
	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sheaf-run/agent/drivers/cgroup"
	"github.com/sheaf-run/agent/drivers/driverpb"
	"github.com/sheaf-run/agent/drivers/mount"
	"github.com/sheaf-run/agent/drivers/supervisor"
	"github.com/sheaf-run/agent/sheaf"
)

const (
	// supervisorDir is where a kept container finds its supervisor until that has come up.
	supervisorDir = "/run/sheaf"
	// comingUp bounds how long that takes on a machine that is very busy.
	comingUp = time.Minute
	// startMemory and startPids are for the supervisor until it is known what it
	// takes, and sparePids for threads that it may still need: none of them are the program's.
	startMemory = 128 << 20
	startPids   = 64
	sparePids   = 4
)

// worker is a kept container with its supervisor. A thread of ours lives in its
// mount namespace and puts each execution's files in place.
type worker struct {
	session   *session
	pool      string // its key
	container string
	user      specs.User // of the programs
	template  *template
	host      bool // it has the host's network

	conn    *supervisor.Conn
	group   *cgroup.Group
	seen    cgroup.Events // at the end of the execution before
	scratch []*scratch    // file systems that programs may write to
	buf     []byte

	work   chan *job // closed by end
	gone   chan struct{}
	expiry *time.Timer // of its idleness; guarded by the session's mu
}

// job is an execution for a worker's thread, and what came of it.
type job struct {
	e      *execution
	held   []held
	exited *driverpb.Exited // nil when it was not begun, and may be elsewhere
	sound  bool             // the container is as good as new
	alone  bool             // the container runs nothing any more
	done   chan struct{}
}

// newWorker makes a kept container and waits for its supervisor.
func (s *session) newWorker(pool string, start *driverpb.Start, held []held) (_ *worker, err error) {
	ctx, stop := context.WithTimeout(context.WithoutCancel(s.client), creation)
	defer stop()
	conn, ctx, err := s.driver.daemon.connect(ctx)
	if err != nil {
		return nil, err
	}
	t, err := s.driver.ready(start.GetHandle())
	if err != nil {
		return nil, err
	}
	w := &worker{
		session: s, pool: pool, container: s.driver.containerID("kept " + rand.Text()), user: t.spec.Process.User, template: t,
		host: start.GetNetwork() == sheaf.NetworkHost, buf: make([]byte, readLen), work: make(chan *job), gone: make(chan struct{}),
	}
	s.driver.mu.Lock()
	owner, dir := s.driver.owner, s.driver.pipes
	s.driver.mu.Unlock()
	l, err := supervisor.Listen(filepath.Join(dir, w.container+".socket"))
	if err != nil {
		return nil, err
	}
	defer l.Close()
	defer func() {
		if err == nil {
			return
		}
		if w.conn != nil {
			w.conn.Close()
		}
		if err := s.driver.remove(ctx, conn, w.container); err != nil {
			slog.Warn("container not removed", "container", w.container, "error", err)
		}
	}()
	spec, tmpfs, err := t.kept(start, held, w.container, dir)
	if err != nil {
		return nil, err
	}
	pid, err := launchKept(ctx, conn, t, spec, w.container, map[string]string{labelOwner: owner})
	if err != nil {
		return nil, err
	}
	if w.conn, err = l.Accept(pid, comingUp); err != nil {
		return nil, err
	}
	if err := w.limit(start); err != nil {
		return nil, err
	}
	namespace, err := unix.Open(fmt.Sprintf("/proc/%d/ns/mnt", pid), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("find the container's mounts: %w", err)
	}
	ready := make(chan error, 1)
	go mount.OffMainThread(func() {
		defer close(w.gone)
		err := w.enter(namespace, tmpfs)
		_ = unix.Close(namespace)
		ready <- err
		if err != nil {
			return
		}
		for j := range w.work {
			w.execute(j)
			close(j.done)
		}
		for _, s := range w.scratch {
			s.close()
		}
	})
	if err := <-ready; err != nil {
		<-w.gone
		w.group.Close()
		return nil, fmt.Errorf("enter the container: %w", err)
	}
	return w, nil
}

// launchKept makes and starts a container whose output nobody reads, and tells its process 1.
func launchKept(ctx context.Context, conn *client.Client, t *template, spec *specs.Spec, id string, labels map[string]string) (pid int, err error) {
	root, err := record(ctx, conn, t, spec, id, labels)
	if err != nil {
		return 0, err
	}
	made, err := conn.TaskService().Create(ctx, &tasks.CreateTaskRequest{ContainerID: id, Rootfs: root})
	if err != nil {
		return 0, errdefs.FromGRPC(err)
	}
	if _, err := conn.TaskService().Start(ctx, &tasks.StartRequest{ContainerID: id}); err != nil {
		return 0, errdefs.FromGRPC(err)
	}
	return int(made.GetPid()), nil
}

// limit gives the programs what they may use, and the supervisor what it uses on top.
func (w *worker) limit(start *driverpb.Start) error {
	tree, err := cgroup.Find()
	if err != nil {
		return err
	}
	if w.group, err = tree.Existing(filepath.Join(cgroupRoot, w.container), sparePids); err != nil {
		return err
	}
	if err := w.group.Limit(cgroup.Limits{Memory: start.GetMemoryBytes(), Pids: start.GetPids(), CPUMHz: start.GetCpuMhz()}); err != nil {
		w.group.Close()
		return err
	}
	w.seen = w.group.Events()
	return nil
}

// kept says how a kept container is made, and which file systems of it programs may write to.
func (t *template) kept(start *driverpb.Start, held []held, id, dir string) (_ *specs.Spec, tmpfs []specs.Mount, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, nil, fmt.Errorf("find the agent's program: %w", err)
	}
	emptyDir, emptyFile, err := empties(dir)
	if err != nil {
		return nil, nil, err
	}
	mounts := []specs.Mount{
		memoryTmp(),
		bind(self, supervisorDir+"/agent", true),
		bind(filepath.Join(dir, id+".socket"), supervisorDir+"/socket", false),
	}
	// Where files will be put there must be something to put them on: the root is read-only.
	for _, h := range held {
		switch {
		case inScratch(h.target):
		case h.file:
			mounts = append(mounts, bind(emptyFile, h.target, true))
		default:
			mounts = append(mounts, bind(emptyDir, h.target, true))
		}
	}
	slices.SortStableFunc(mounts, func(a, b specs.Mount) int { return strings.Compare(a.Destination, b.Destination) })
	room := &driverpb.Start{Network: start.GetNetwork(), CpuMhz: start.GetCpuMhz()}
	if n := start.GetMemoryBytes(); n > 0 {
		room.MemoryBytes = n + startMemory
	}
	if n := start.GetPids(); n > 0 {
		room.Pids = n + startPids
	}
	spec := t.base(room, id, mounts)
	for i, m := range spec.Mounts {
		switch {
		case m.Type == "proc":
			// The supervisor is not theirs to see: where they run as root, some of its files would be theirs to write.
			spec.Mounts[i].Options = append(slices.Clone(m.Options), "hidepid=2", fmt.Sprintf("gid=%d", supervisorUID(t)))
		case m.Destination == "/dev":
			// What a program made in it could not be told from what is its own.
			spec.Mounts[i].Options = append(slices.Clone(m.Options), "ro")
		case m.Type == "tmpfs":
			tmpfs = append(tmpfs, m)
		}
	}
	p := spec.Process
	p.Args = []string{supervisorDir + "/agent", "plugin", "supervisor", supervisorDir + "/socket"}
	p.Env = []string{"GOMAXPROCS=1"}
	p.User = specs.User{UID: supervisorUID(t), GID: supervisorUID(t)}
	powers := supervisor.Capabilities()
	p.Capabilities = &specs.LinuxCapabilities{Bounding: powers, Effective: powers, Permitted: powers, Inheritable: powers, Ambient: powers}
	return spec, tmpfs, nil
}

// supervisorUID is the supervisor's user and group, who must be another than the programs'.
func supervisorUID(t *template) uint32 {
	if u := t.spec.Process.User; u.UID != supervisor.UID && u.GID != supervisor.UID && !slices.Contains(u.AdditionalGids, supervisor.UID) {
		return supervisor.UID
	}
	return supervisor.UID - 1
}

// empties are a directory and a file that stand in a kept container where nothing is mounted.
func empties(dir string) (emptyDir, emptyFile string, err error) {
	emptyDir, emptyFile = filepath.Join(dir, "empty.dir"), filepath.Join(dir, "empty.file")
	if err := os.MkdirAll(emptyDir, 0o755); err != nil {
		return "", "", fmt.Errorf("make an empty directory: %w", err)
	}
	f, err := os.OpenFile(emptyFile, os.O_CREATE, 0o444)
	if err != nil {
		return "", "", fmt.Errorf("make an empty file: %w", err)
	}
	return emptyDir, emptyFile, f.Close()
}

// share runs an execution in a kept container.
func (s *session) share(e *execution) *driverpb.Exited {
	if err := own(e.start, s.userOf(e.start)); err != nil {
		return notStarted(err)
	}
	for range maxIdle + 1 { // all that are kept may have ended meanwhile, as by a hand
		held, err := holdAll(e.start)
		if err != nil {
			releaseAll(held)
			return notStarted(err)
		}
		w, err := s.acquire(e, held)
		if err != nil {
			releaseAll(held)
			return notStarted(err)
		}
		j := &job{e: e, held: held, done: make(chan struct{})}
		w.work <- j
		<-j.done
		releaseAll(held)
		switch {
		case j.sound:
			s.giveBack(w)
		case j.alone:
			s.mu.Lock()
			s.retire(w)
			s.mu.Unlock()
		default: // what was started may still run: the client must not hear of its end before it is one
			w.end()
			s.driver.clear(s.client, w.container)
		}
		if j.exited != nil {
			return j.exited
		}
	}
	return notStarted(errors.New("its container ended before it began, each time"))
}

// userOf is the user whom an execution's files are given to.
func (s *session) userOf(start *driverpb.Start) specs.User {
	t, err := s.driver.ready(start.GetHandle())
	if err != nil {
		return specs.User{} // told when its container is made
	}
	return t.spec.Process.User
}

// end lets the supervisor go, and waits for the thread.
func (w *worker) end() {
	w.conn.Close()
	close(w.work)
	<-w.gone
	w.group.Close()
}
