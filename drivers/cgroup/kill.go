package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	// killPatience is how long killed processes may take to go: those in a system call that
	// cannot be interrupted take as long as their disk.
	killPatience = 30 * time.Second
	killPause    = time.Millisecond
	// removePatience is how long an empty group may stay busy.
	removePatience = 5 * time.Second
	reapRounds     = 5 // of a killPause each: to make another group is cheaper than to wait longer
)

// Alone reports whether nothing but this process' own threads is in the group.
func (g *Group) Alone() bool { return number(g.current) <= g.threads }

// Kill ends everything in the group but this process' own threads, and
// reports whether the group is good for another program: nothing is left that counts against its limits.
func (g *Group) Kill() bool {
	if g.Alone() {
		return true
	}
	// Nothing may be born while the living are listed and killed.
	_ = write(g.file("pids", "pids.max"), "0", "") // then it takes some rounds more
	g.limited = false
	if _, _, empty := killProcs(g.tree.dirs(g.path)[0]); !empty {
		return false
	}
	// Dead children of dead parents count until init has reaped them. Some inits take their time.
	for range reapRounds {
		if g.Alone() {
			return true
		}
		time.Sleep(killPause)
	}
	return g.Alone()
}

// killProcs kills what is in one directory until nothing is. own tells that
// threads of this process are there.
func killProcs(dir string) (killed int, own, empty bool) {
	self := os.Getpid()
	seen := map[int]bool{}
	for deadline := time.Now().Add(killPatience); ; time.Sleep(killPause) {
		list, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		if err != nil {
			return killed, own, errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENODEV)
		}
		others := 0
		for field := range strings.FieldsSeq(string(list)) {
			pid, err := strconv.Atoi(field)
			if err != nil || pid <= 0 {
				continue // 0 stands for one of another pid namespace
			}
			if pid == self {
				own = true
				continue
			}
			others++
			if !seen[pid] {
				seen[pid] = true
				killed++
			}
			_ = syscall.Kill(pid, syscall.SIGKILL) // gone meanwhile is what we want
		}
		if others == 0 {
			return killed, own, true
		}
		if time.Now().After(deadline) {
			return killed, own, false
		}
	}
}

// Leave moves the calling thread, which entered it, out of the group.
func (g *Group) Leave() error {
	if g.threads == 0 {
		return nil
	}
	g.threads, g.limited = 0, false
	tid := strconv.Itoa(syscall.Gettid())
	for _, mount := range g.tree.mounts {
		if err := write(filepath.Join(mount, "tasks"), tid, ""); err != nil {
			return fmt.Errorf("leave cgroup %s: %w", g.path, err)
		}
	}
	return nil
}

// Close lets go of the group, which stays. It is not to be used any more.
func (g *Group) Close() {
	for _, f := range []*os.File{g.current, g.peak, g.usage, g.oom, g.pids} {
		if f != nil {
			_ = f.Close() // read-only
		}
	}
	if g.dirFD >= 0 {
		_ = syscall.Close(g.dirFD)
		g.dirFD = -1
	}
}

// Remove removes the group, which nothing may be in any more.
func (g *Group) Remove() error {
	g.Close()
	var errs []error
	for _, dir := range g.tree.dirs(g.path) {
		errs = append(errs, removeDir(dir))
	}
	return errors.Join(errs...)
}

// removeDir removes a cgroup. It is busy for a moment after its last process has gone.
func removeDir(dir string) error {
	for deadline := time.Now().Add(removePatience); ; time.Sleep(killPause) {
		err := syscall.Rmdir(dir)
		if err == nil || errors.Is(err, syscall.ENOENT) {
			return nil
		}
		if !errors.Is(err, syscall.EBUSY) || time.Now().After(deadline) {
			return fmt.Errorf("remove cgroup %s: %w", dir, err)
		}
	}
}
