// Package cgroup limits and ends what a driver runs. It speaks cgroup v1 and v2,
// whichever has the memory and pids controllers, and keeps every group of ours in a tree
// "sheaf/<area>", so that whatever an earlier process left can be found and killed by [Area.KillAll].
//
// A [Group] is made to be used for one program after another: making one costs
// more than starting a program. It belongs to one goroutine at a time.
package cgroup

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrNone is returned by Find where this machine or user has no cgroup tree that
// limits memory and pids.
var ErrNone = errors.New("no cgroup tree that can be written to has the memory and pids controllers")

// root is the name of our tree in each hierarchy.
const root = "sheaf"

// Tree is a machine's cgroup mounts, as far as we use them.
type Tree struct {
	v2      bool
	mounts  map[string]string // controller ("memory", "pids", "cpu") to mount point; v2: all the same
	unified string            // v2's mount point
}

// Version is 1 or 2.
func (t *Tree) Version() int {
	if t.v2 {
		return 2
	}
	return 1
}

// Find looks for the tree that this process can use.
func Find() (*Tree, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("find cgroups: %w", err)
	}
	defer f.Close()
	v1, unified := map[string]string{}, ""
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		// The format is proc_pid_mountinfo(5)'s: the mount point is the fifth field, type and
		// options come after a lone dash.
		before, after, ok := strings.Cut(lines.Text(), " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if !ok || len(left) < 5 || len(right) < 3 {
			continue
		}
		switch right[0] {
		case "cgroup2":
			unified = left[4]
		case "cgroup":
			for option := range strings.SplitSeq(right[2], ",") {
				if option == "memory" || option == "pids" || option == "cpu" {
					v1[option] = left[4]
				}
			}
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("find cgroups: %w", err)
	}
	t := &Tree{mounts: v1}
	if v1["memory"] == "" || v1["pids"] == "" {
		if unified == "" {
			return nil, ErrNone
		}
		t = unifiedTree(unified)
	}
	if t.mounts["memory"] == "" || t.mounts["pids"] == "" {
		return nil, ErrNone
	}
	for _, mount := range t.dirs("") {
		if err := unix.Access(mount, unix.W_OK); err != nil {
			return nil, fmt.Errorf("%w: %s: %w", ErrNone, mount, err)
		}
	}
	return t, nil
}

func unifiedTree(mount string) *Tree {
	t := &Tree{v2: true, unified: mount, mounts: map[string]string{}}
	list, _ := os.ReadFile(filepath.Join(mount, "cgroup.controllers")) // unreadable: none
	for c := range strings.FieldsSeq(string(list)) {
		if c == "memory" || c == "pids" || c == "cpu" {
			t.mounts[c] = mount
		}
	}
	return t
}

// dirs are the directories of a group in every hierarchy, each once.
func (t *Tree) dirs(path string) []string {
	if t.v2 {
		return []string{filepath.Join(t.unified, path)}
	}
	var dirs []string
	for _, mount := range t.mounts {
		if dir := filepath.Join(mount, path); !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

// Area is one owner's part of the tree.
type Area struct {
	tree *Tree
	path string
}

// Area makes the part of the tree for an owner, whose name is a file name that
// stays the same over its restarts.
func (t *Tree) Area(owner string) (*Area, error) {
	a := &Area{tree: t, path: filepath.Join(root, owner)}
	for _, dir := range t.dirs(a.path) {
		if err := makeArea(dir); err != nil {
			return nil, fmt.Errorf("make cgroup %s: %w", dir, err)
		}
	}
	if t.v2 {
		// A group has a controller's files only when its parents hand the controller down.
		for _, dir := range []string{t.unified, filepath.Join(t.unified, root), filepath.Join(t.unified, a.path)} {
			for c := range t.mounts {
				if err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+c), 0); err != nil {
					return nil, fmt.Errorf("hand down cgroup controller %s in %s: %w", c, dir, err)
				}
			}
		}
	}
	return a, nil
}

// makeArea makes a directory in our tree, and the tree where there is none: another process may just be
// removing it with its own area.
func makeArea(dir string) error {
	for {
		err := os.Mkdir(filepath.Dir(dir), 0o755)
		if err == nil || errors.Is(err, fs.ErrExist) {
			err = os.Mkdir(dir, 0o755)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
		}
		if errors.Is(err, fs.ErrExist) {
			return nil
		}
		return err
	}
}

// KillAll ends every process in the area, whoever put it there, and removes the area's groups.
// This process' own threads are spared, and so are their groups. It returns how many processes were killed.
func (a *Area) KillAll() (int, error) {
	killed := 0
	var errs []error
	for _, dir := range a.tree.dirs(a.path) {
		entries, err := os.ReadDir(dir)
		if err != nil {
			errs = append(errs, fmt.Errorf("list cgroups: %w", err))
			continue
		}
		for _, e := range entries {
			if !e.IsDir() {
				continue
			}
			path := filepath.Join(dir, e.Name())
			n, own, empty := killProcs(path)
			killed += n
			if own {
				continue
			}
			if !empty {
				errs = append(errs, fmt.Errorf("cgroup %s still has processes after %v", path, killPatience))
			} else if err := removeDir(path); err != nil {
				errs = append(errs, err)
			}
		}
	}
	return killed, errors.Join(errs...)
}

// Remove removes the area, which must have no groups left, and our tree with its last area.
func (a *Area) Remove() error {
	var errs []error
	for _, dir := range a.tree.dirs(a.path) {
		errs = append(errs, removeDir(dir))
		_ = os.Remove(filepath.Dir(dir)) // other owners' areas are in it
	}
	return errors.Join(errs...)
}
