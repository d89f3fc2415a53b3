package operations

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// prefix begins the names of the cgroups of these tests; the test's process follows, so
// that runs do not meet and the next one knows what a killed one left.
const prefix = "sheaf-site-"

// cgroupMounts are where the kernel's cgroup trees are mounted, v1's and v2's.
func cgroupMounts() (mounts []string, err error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		before, after, _ := strings.Cut(lines.Text(), " - ")
		if left := strings.Fields(before); strings.HasPrefix(after, "cgroup") && len(left) > 4 {
			mounts = append(mounts, left[4])
		}
	}
	return mounts, nil
}

// newGroups makes a cgroup for each machine below one for the site in every tree, and gives the site's
// name and the trees.
func newGroups(t testing.TB, machines []machine) (site string, mounts []string) {
	t.Helper()
	mounts, err := cgroupMounts()
	if err != nil || len(mounts) == 0 {
		t.Fatalf("find the cgroup trees: %v %v", mounts, err)
	}
	site = prefix + strconv.Itoa(os.Getpid())
	t.Cleanup(func() {
		for _, dir := range groups(os.Getpid()) {
			if err := removeGroup(dir); err != nil {
				t.Error(err)
			}
		}
	})
	for _, mount := range mounts {
		for _, dir := range append([]string{site}, below(site, machines)...) {
			if err := newGroup(filepath.Join(mount, dir)); err != nil {
				t.Fatal(err)
			}
		}
	}
	return site, mounts
}

func below(site string, machines []machine) (dirs []string) {
	for _, m := range machines {
		dirs = append(dirs, filepath.Join(site, m.name))
	}
	return dirs
}

// newGroup makes one group that can be used: in v1 one of cpuset begins without processors, in v2 a
// group has the controllers that its parent hands down.
func newGroup(dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		text, err := os.ReadFile(filepath.Join(dir, "..", file))
		if _, ours := os.Stat(filepath.Join(dir, "cgroup.clone_children")); err != nil || ours != nil {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, file), text, 0); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, "cgroup.clone_children"), []byte("1"), 0); err != nil {
			return err
		}
	}
	controllers, _ := os.ReadFile(filepath.Join(dir, "..", "cgroup.controllers")) // v2 has the file
	for c := range strings.FieldsSeq(string(controllers)) {
		if err := os.WriteFile(filepath.Join(dir, "..", "cgroup.subtree_control"), []byte("+"+c), 0); err != nil {
			return fmt.Errorf("hand down %s to %s: %w", c, dir, err)
		}
	}
	return nil
}

// groups are the groups in all trees of the sites that a process made.
func groups(pid int) (dirs []string) {
	mounts, _ := cgroupMounts()
	for _, mount := range mounts {
		if dir := filepath.Join(mount, prefix+strconv.Itoa(pid)); exists(dir) {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// sweep removes what a process left that was killed before it could; its machines went with it.
func sweep() error {
	mounts, err := cgroupMounts()
	for _, mount := range mounts {
		dirs, _ := filepath.Glob(filepath.Join(mount, prefix+"*"))
		for _, dir := range dirs {
			pid, bad := strconv.Atoi(strings.TrimPrefix(filepath.Base(dir), prefix))
			if bad == nil && errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
				err = errors.Join(err, removeGroup(dir))
			}
		}
	}
	return err
}

// removeGroup removes a group with those below it. Its processes have ended, and leave it when they have been waited for.
func removeGroup(dir string) error {
	var err error
	if within(patience, func() bool { err = removeDirs(dir); return err == nil }) {
		return nil
	}
	return fmt.Errorf("remove the cgroup: %w", err)
}

func removeDirs(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeDirs(filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return os.Remove(dir)
}
