package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// cgroups is the unified tree; where controllers are in cgroup v1 it stands beside them.
// Freezing and killing belong to every group of it.
var cgroups = func() string {
	if _, err := os.Stat("/sys/fs/cgroup/unified/cgroup.procs"); err == nil {
		return "/sys/fs/cgroup/unified"
	}
	return "/sys/fs/cgroup"
}()

// group holds an agent and all that it started, but for containers: those are the runtime's.
type group struct {
	t    *current
	path string
}

func newGroup(t *current, name string) *group {
	t.Helper()
	g := &group{t: t, path: filepath.Join(cgroups, name)}
	if err := os.Mkdir(g.path, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := removeGroup(g.path); err != nil {
			t.Error(err)
		}
	})
	return g
}

func (g *group) write(file, text string) {
	g.t.Helper()
	if err := os.WriteFile(filepath.Join(g.path, file), []byte(text), 0o644); err != nil {
		g.t.Fatal(err)
	}
}

// freeze stops all of the group at once, and waits until nothing of it runs.
func (g *group) freeze() {
	g.t.Helper()
	g.write("cgroup.freeze", "1")
	await(g.t, g.path+" is frozen", func() bool {
		b, err := os.ReadFile(filepath.Join(g.path, "cgroup.events"))
		return err == nil && bytes.Contains(b, []byte("frozen 1"))
	})
}

func (g *group) thaw() {
	g.t.Helper()
	g.write("cgroup.freeze", "0")
}

// kill ends all of the group at once, as a machine that loses its power does.
func (g *group) kill() {
	g.t.Helper()
	g.write("cgroup.kill", "1")
}

// removeGroup kills what is in a group, and removes it with those below it.
func removeGroup(path string) error {
	_ = os.WriteFile(filepath.Join(path, "cgroup.kill"), []byte("1"), 0o644)
	below, _ := filepath.Glob(filepath.Join(path, "*", "cgroup.procs"))
	for _, b := range below {
		if err := removeGroup(filepath.Dir(b)); err != nil {
			return err
		}
	}
	var err error
	// What was killed leaves the group when it has been waited for.
	if !within(patience, func() bool {
		err = os.Remove(path)
		return err == nil || errors.Is(err, os.ErrNotExist)
	}) {
		return fmt.Errorf("remove the cgroup: %w", err)
	}
	return nil
}
