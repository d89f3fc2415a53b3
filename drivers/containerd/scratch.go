package containerd

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sheaf-run/agent/drivers/driverpb"
	"github.com/sheaf-run/agent/drivers/mount"
	"github.com/sheaf-run/agent/drivers/supervisor"
)

// held is a mount of an execution's that waits to be moved into a container.
type held struct {
	target string
	file   bool
	fd     int
}

// holdAll takes hold of all that an execution gets, in the order in which it is put in place. What
// it returns is to be released, also after an error.
func holdAll(start *driverpb.Start) ([]held, error) {
	list := slices.Clone(start.GetMounts())
	if dir := start.GetWorkDir(); dir != "" {
		list = append(list, &driverpb.Mount{Source: dir, Target: "/tmp"})
	}
	slices.SortStableFunc(list, func(a, b *driverpb.Mount) int { return strings.Compare(a.GetTarget(), b.GetTarget()) })
	var all []held
	for _, m := range list {
		fd, file, err := mount.Hold(m, mount.WithoutBelow)
		if err != nil {
			return all, fmt.Errorf("mount %s: %w", m.GetTarget(), err)
		}
		all = append(all, held{target: m.GetTarget(), file: file, fd: fd})
	}
	return all, nil
}

func releaseAll(all []held) {
	for _, h := range all {
		if h.fd >= 0 {
			_ = unix.Close(h.fd)
		}
	}
}

// enter moves the calling thread into a container's mount namespace, to stay, and takes
// away what the supervisor has come up by: programs find nothing of it.
func (w *worker) enter(namespace int, tmpfs []specs.Mount) error {
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return err
	}
	if err := unix.Setns(namespace, unix.CLONE_NEWNS); err != nil {
		return err
	}
	for _, path := range []string{supervisorDir + "/agent", supervisorDir + "/socket"} {
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount %s: %w", path, err)
		}
	}
	for _, m := range tmpfs {
		s := &scratch{path: m.Destination}
		s.flags, s.data = mountOptions(m.Options)
		if err := s.renew(); err != nil {
			return err
		}
		w.scratch = append(w.scratch, s)
	}
	return nil
}

// place puts an execution's files where it will look for them, and tells how many of them are there.
func (w *worker) place(all []held) (int, error) {
	for i, h := range all {
		err := unix.MoveMount(h.fd, "", unix.AT_FDCWD, h.target, unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_SYMLINKS)
		if errors.Is(err, unix.ENOENT) { // in a file system that is made anew, or in a mount before
			if err = makePoint(h); err == nil {
				err = unix.MoveMount(h.fd, "", unix.AT_FDCWD, h.target, unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_SYMLINKS)
			}
		}
		if err != nil {
			return i, fmt.Errorf("mount %s: %w", h.target, err)
		}
		_ = unix.Close(h.fd) // or it would be in use when it is unmounted
		all[i].fd = -1
	}
	return len(all), nil
}

func makePoint(h held) error {
	dir := h.target
	if h.file {
		dir = filepath.Dir(dir)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil || !h.file {
		return err
	}
	f, err := os.OpenFile(h.target, os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	return f.Close()
}

// clear takes away what was put in place, and what the program wrote elsewhere.
func (w *worker) clear(all []held) error {
	for _, h := range slices.Backward(all) {
		if err := unix.Unmount(h.target, 0); err != nil {
			return fmt.Errorf("unmount %s: %w", h.target, err)
		}
	}
	for _, s := range w.scratch {
		if s.untouched() {
			continue
		}
		if err := s.renew(); err != nil {
			return err
		}
	}
	return nil
}

// inScratch reports whether a path is in one of the file systems that are made
// anew, where a place to mount something can be made when it is needed.
func inScratch(path string) bool {
	return slices.ContainsFunc([]string{"/tmp", "/run", "/dev/shm"}, func(dir string) bool {
		return path == dir || strings.HasPrefix(path, dir+"/")
	})
}

// scratch is a file system in memory that programs may write to. Each finds it as the first one did.
type scratch struct {
	path  string
	flags uintptr
	data  string

	made bool
	dir  int // its root, open
	was  unix.Stat_t
}

// untouched reports whether a new one would be the same.
func (s *scratch) untouched() bool {
	var is unix.Stat_t
	if unix.Fstat(s.dir, &is) != nil || is.Mode != s.was.Mode || is.Uid != s.was.Uid || is.Gid != s.was.Gid {
		return false
	}
	if n, err := unix.Flistxattr(s.dir, nil); n > 0 || err != nil && !errors.Is(err, unix.ENOTSUP) {
		return false
	}
	empty, err := supervisor.Empty(s.dir)
	return err == nil && empty
}

// renew replaces it by a new one. Nothing runs in the container but the supervisor.
func (s *scratch) renew() error {
	s.close()
	if err := unix.Unmount(s.path, 0); err != nil {
		return fmt.Errorf("unmount %s: %w", s.path, err)
	}
	if err := unix.Mount("tmpfs", s.path, "tmpfs", s.flags, s.data); err != nil {
		return fmt.Errorf("mount %s: %w", s.path, err)
	}
	dir, err := unix.Open(s.path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err == nil {
		s.dir, s.made = dir, true
		err = unix.Fstat(dir, &s.was)
	}
	if err != nil {
		return fmt.Errorf("look at %s: %w", s.path, err)
	}
	return nil
}

func (s *scratch) close() {
	if s.made {
		_ = unix.Close(s.dir)
		s.made = false
	}
}

// mountOptions are a spec's for the mount system call.
func mountOptions(options []string) (flags uintptr, data string) {
	names := map[string]uintptr{
		"nosuid": unix.MS_NOSUID, "nodev": unix.MS_NODEV, "noexec": unix.MS_NOEXEC, "ro": unix.MS_RDONLY,
		"strictatime": unix.MS_STRICTATIME, "noatime": unix.MS_NOATIME, "relatime": unix.MS_RELATIME,
	}
	var rest []string
	for _, o := range options {
		if flag, ok := names[o]; ok {
			flags |= flag
		} else {
			rest = append(rest, o)
		}
	}
	return flags, strings.Join(rest, ",")
}
