// Package containerdtest gives tests a containerd of their own, and images without a registry.
package containerdtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	client "github.com/containerd/containerd"
)

const (
	patience = time.Minute           // how long the daemon may take to answer
	askEvery = 20 * time.Millisecond // one that has just been started may refuse, or say that it is not ready
)

// Daemon is a containerd on a socket of its own, with its own images and state.
type Daemon struct {
	Address string
	dir     string
	cmd     *exec.Cmd
	log     *bytes.Buffer
}

// Start starts a daemon that keeps everything below a new folder. The caller stops it.
func Start() (*Daemon, error) {
	// Unix sockets have short paths: this folder is not a test's.
	dir, err := os.MkdirTemp("", "sheaf-ctrd-")
	if err != nil {
		return nil, err
	}
	d := &Daemon{Address: filepath.Join(dir, "c.sock"), dir: dir}
	conf := fmt.Sprintf("version = 2\nroot = %q\nstate = %q\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.snapshotter.v1.aufs\", \"io.containerd.snapshotter.v1.btrfs\", \"io.containerd.snapshotter.v1.zfs\", \"io.containerd.snapshotter.v1.devmapper\", \"io.containerd.internal.v1.opt\"]\n[grpc]\n  address = %q\n[timeouts]\n",
		filepath.Join(dir, "root"), filepath.Join(dir, "state"), d.Address)
	// Its own patience with shims is for machines with nothing else to do: one that is late is ended, or said to be in no state.
	for _, what := range []string{"shim.cleanup", "shim.load", "shim.shutdown", "task.state"} {
		conf += fmt.Sprintf("  \"io.containerd.timeout.%s\" = %q\n", what, patience)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.toml"), []byte(conf), 0o600); err != nil {
		return nil, err
	}
	return d, d.Run()
}

// Run starts the process, also after Kill.
func (d *Daemon) Run() error {
	// A client takes the socket of a killed daemon for one that refuses.
	if err := os.Remove(d.Address); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	d.log = &bytes.Buffer{}
	d.cmd = exec.Command("containerd", "--config", filepath.Join(d.dir, "config.toml"))
	d.cmd.Stdout, d.cmd.Stderr = d.log, d.log
	if err := d.cmd.Start(); err != nil {
		return fmt.Errorf("start containerd (make system-packages installs it): %w", err)
	}
	ctx, stop := context.WithTimeout(context.Background(), patience)
	defer stop()
	for {
		err := d.serves(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-time.After(askEvery):
		case <-ctx.Done():
			d.Kill()
			return fmt.Errorf("containerd: %w\n%s", err, d.log)
		}
	}
}

// serves asks the daemon. One whose socket stands already and does not listen yet refuses the connection.
func (d *Daemon) serves(ctx context.Context) error {
	conn, err := client.New(d.Address, client.WithTimeout(patience))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	ok, err := conn.IsServing(ctx)
	if err == nil && !ok {
		err = errors.New("it does not serve yet")
	}
	return err
}

// Kill ends the daemon the hard way; its shims and their containers live on.
func (d *Daemon) Kill() {
	_ = d.cmd.Process.Kill()
	_ = d.cmd.Wait()
}

// Stop removes every container of every namespace, ends the daemon, and removes its
// folder. Where the daemon was killed, it ends what the daemon's shims run.
func (d *Daemon) Stop() error {
	if d.cmd.ProcessState == nil {
		d.removeContainers()
	}
	_ = d.cmd.Process.Signal(syscall.SIGTERM)
	_ = d.cmd.Wait()
	d.killShims()
	return d.removeFolder()
}

// removeFolder removes the folder. What a container that would not go left mounted is let go of first, and what was killed may
// need a moment to end.
func (d *Daemon) removeFolder() error {
	for deadline := time.Now().Add(patience); ; time.Sleep(askEvery) {
		mounts, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil {
			return err
		}
		lines := strings.Split(string(mounts), "\n")
		for _, line := range slices.Backward(lines) {
			// The mount point is the fifth field, as proc_pid_mountinfo(5) has it.
			if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], d.dir+"/") {
				_ = syscall.Unmount(f[4], syscall.MNT_DETACH)
			}
		}
		if err = os.RemoveAll(d.dir); err == nil || time.Now().After(deadline) {
			return err
		}
	}
}

// killShims ends the shims that are left, and their children first: a shim's end does not end them.
func (d *Daemon) killShims() {
	shims := map[string]bool{}
	each := func(file string, do func(pid int, text string)) {
		paths, _ := filepath.Glob("/proc/[0-9]*/" + file)
		for _, path := range paths {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			text, readErr := os.ReadFile(path)
			if err == nil && readErr == nil {
				do(pid, string(text))
			}
		}
	}
	each("cmdline", func(pid int, text string) {
		if strings.Contains(text, "-address\x00"+d.Address+"\x00") {
			shims[strconv.Itoa(pid)] = true
		}
	})
	if len(shims) == 0 {
		return
	}
	each("stat", func(pid int, text string) {
		_, rest, _ := strings.Cut(text, ") ")
		if fields := strings.Fields(rest); len(fields) > 1 && shims[fields[1]] {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	})
	for shim := range shims {
		if pid, err := strconv.Atoi(shim); err == nil {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

func (d *Daemon) removeContainers() {
	ctx, stop := context.WithTimeout(context.Background(), patience)
	defer stop()
	conn, err := client.New(d.Address, client.WithTimeout(patience))
	if err != nil {
		return
	}
	defer func() { _ = conn.Close() }()
	spaces, err := conn.NamespaceService().List(ctx)
	if err != nil {
		return
	}
	for _, ns := range spaces {
		ctx := withNamespace(ctx, ns)
		list, err := conn.Containers(ctx)
		if err != nil {
			continue
		}
		for _, c := range list {
			if t, err := c.Task(ctx, nil); err == nil {
				_, _ = t.Delete(ctx, client.WithProcessKill)
			}
			_ = c.Delete(ctx, client.WithSnapshotCleanup)
		}
	}
}
