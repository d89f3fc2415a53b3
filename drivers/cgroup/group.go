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

	"golang.org/x/sys/unix"
)

const (
	minShares = 2 // the kernel's bounds for v1's cpu.shares
	maxShares = 262144
)

// Limits are what a group may use. 0 is no limit.
type Limits struct {
	Memory int64 // bytes, swap included
	Pids   int64 // processes and threads
	CPUMHz int64 // a share against others, not a ceiling
}

// Events count how often limits were hit.
type Events struct {
	OOMKills int64 // processes killed for memory
	PidsMax  int64 // forks refused
}

// Group is one cgroup, in every hierarchy that has one of our controllers.
type Group struct {
	tree    *Tree
	path    string
	limits  Limits
	limited bool  // limits holds what the files say
	threads int64 // of ours in it, by Enter or Existing, which count against no limit
	base    int64 // bytes that count against no limit

	dirFD     int // v2: the directory, for Attach; -1 in v1
	current   *os.File
	peak      *os.File // reading is the peak since the last reset
	usage     *os.File
	oom, pids *os.File
	floor     int64 // bytes in use at the last reset: pages of files that an earlier program left
}

// Group makes a group in the area, or takes the one of that name.
func (a *Area) Group(name string) (*Group, error) {
	g := &Group{tree: a.tree, path: filepath.Join(a.path, name), dirFD: -1}
	for _, dir := range a.tree.dirs(g.path) {
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			_ = g.Remove() // best effort: the first error counts
			return nil, fmt.Errorf("make cgroup: %w", err)
		}
	}
	if err := g.open(); err != nil {
		_ = g.Remove()
		return nil, fmt.Errorf("open cgroup %s: %w", g.path, err)
	}
	return g, nil
}

// Existing opens a group that somebody else made and will remove, by its path from the tree's
// mounts on. What it holds now, as slack processes more, counts against no limit.
func (t *Tree) Existing(path string, slack int64) (*Group, error) {
	g := &Group{tree: t, path: path, dirFD: -1}
	if err := g.open(); err != nil {
		g.Close()
		return nil, fmt.Errorf("open cgroup %s: %w", path, err)
	}
	g.threads, g.base = max(number(g.current), 0)+slack, max(number(g.usage), 0)
	return g, nil
}

func (g *Group) open() error {
	names := map[**os.File]string{&g.current: g.file("pids", "pids.current"), &g.pids: g.file("pids", "pids.events")}
	if g.tree.v2 {
		names[&g.peak], names[&g.usage], names[&g.oom] = g.file("memory", "memory.peak"), g.file("memory", "memory.current"), g.file("memory", "memory.events")
	} else {
		names[&g.peak], names[&g.usage], names[&g.oom] = g.file("memory", "memory.max_usage_in_bytes"), g.file("memory", "memory.usage_in_bytes"), g.file("memory", "memory.oom_control")
	}
	for f, path := range names {
		var err error
		// The peak is reset by writing; kernels before 6.12 have it read-only in v2.
		if *f, err = os.OpenFile(path, os.O_RDWR, 0); err != nil {
			*f, err = os.Open(path)
		}
		if err != nil && (f != &g.peak || !errors.Is(err, fs.ErrNotExist)) {
			return err
		}
	}
	if !g.tree.v2 {
		return nil
	}
	fd, err := unix.Open(g.tree.dirs(g.path)[0], unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	g.dirFD = fd
	return err
}

func (g *Group) file(controller, name string) string {
	return filepath.Join(g.tree.mounts[controller], g.path, name)
}

// Limit sets the limits of what runs next. It writes only what changes.
func (g *Group) Limit(l Limits) error {
	if g.limited && g.limits == l {
		return nil
	}
	g.limited = false
	write := g.limitV1
	if g.tree.v2 {
		write = g.limitV2
	}
	if err := write(l); err != nil {
		return fmt.Errorf("limit cgroup %s: %w", g.path, err)
	}
	g.limits, g.limited = l, true
	return nil
}

func (g *Group) limitV1(l Limits) error {
	memory, swap := g.file("memory", "memory.limit_in_bytes"), g.file("memory", "memory.memsw.limit_in_bytes")
	limit := orMax(g.memory(l), "-1")
	// Memory with swap may never be below memory alone, so it is lifted meanwhile.
	// Kernels without swap accounting lack its file.
	for _, w := range []struct{ path, value string }{{swap, "-1"}, {memory, limit}, {swap, limit}} {
		if err := write(w.path, w.value, swap); err != nil {
			return err
		}
	}
	if err := write(g.file("pids", "pids.max"), orMax(g.pidsOf(l), "max"), ""); err != nil {
		return err
	}
	if g.tree.mounts["cpu"] == "" || l.CPUMHz == 0 {
		return nil
	}
	return write(g.file("cpu", "cpu.shares"), strconv.FormatInt(shares(l.CPUMHz), 10), "")
}

func (g *Group) memory(l Limits) int64 {
	if l.Memory == 0 {
		return 0
	}
	return l.Memory + g.base
}

func (g *Group) pidsOf(l Limits) int64 {
	if l.Pids == 0 {
		return 0
	}
	return l.Pids + g.threads
}

func (g *Group) limitV2(l Limits) error {
	swap := g.file("memory", "memory.swap.max")
	err := errors.Join(
		write(g.file("memory", "memory.max"), orMax(g.memory(l), "max"), ""),
		write(swap, map[bool]string{true: "0", false: "max"}[l.Memory > 0], swap),
		write(g.file("pids", "pids.max"), orMax(g.pidsOf(l), "max"), ""),
	)
	if err != nil || g.tree.mounts["cpu"] == "" || l.CPUMHz == 0 {
		return err
	}
	// The kernel's documented mapping of shares 2..262144 to weights 1..10000.
	weight := 1 + (shares(l.CPUMHz)-minShares)*9999/(maxShares-minShares)
	return write(g.file("cpu", "cpu.weight"), strconv.FormatInt(weight, 10), "")
}

func shares(mhz int64) int64 { return min(max(mhz, minShares), maxShares) }

func orMax(n int64, none string) string {
	if n <= 0 {
		return none
	}
	return strconv.FormatInt(n, 10)
}

// write writes a file of the cgroup file system; one that is missing is no
// error when it is the optional one.
func write(path, value, optional string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if errors.Is(err, fs.ErrNotExist) && path == optional {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.WriteString(value); err != nil {
		return fmt.Errorf("%s to %q: %w", filepath.Base(path), value, err)
	}
	return nil
}

// Enter puts the calling thread into a v1 group, so that what it forks is
// born there and never runs outside. The caller has locked the goroutine to a thread
// that is not the process' first. In v2, where threads don't move alone, it does nothing: see Attach.
func (g *Group) Enter() error {
	if g.tree.v2 {
		return nil
	}
	if err := g.add("tasks", unix.Gettid()); err != nil {
		return err
	}
	g.threads, g.limited = 1, false
	return nil
}

// Attach lets a child be born in a v2 group. In v1 it does nothing: see Enter.
func (g *Group) Attach(attr *syscall.SysProcAttr) {
	if g.tree.v2 {
		attr.UseCgroupFD, attr.CgroupFD = true, g.dirFD
	}
}

// Add moves a process into the group.
func (g *Group) Add(pid int) error { return g.add("cgroup.procs", pid) }

func (g *Group) add(file string, id int) error {
	for _, dir := range g.tree.dirs(g.path) {
		if err := write(filepath.Join(dir, file), strconv.Itoa(id), ""); err != nil {
			return fmt.Errorf("enter cgroup %s: %w", g.path, err)
		}
	}
	return nil
}

// Reset begins a new measurement.
func (g *Group) Reset() {
	g.floor = max(number(g.usage), 0)
	if g.peak != nil {
		_, _ = g.peak.WriteAt([]byte("0"), 0) // a kernel that cannot reset it keeps the highest so far
	}
}

// Peak is the most memory in use since the last Reset, in bytes, less what was in use then; 0 where it is not known.
func (g *Group) Peak() int64 { return max(number(g.peak)-g.floor, 0) }

// Events are the counts since the group was made. Both only grow.
func (g *Group) Events() Events {
	return Events{OOMKills: keyed(g.oom, "oom_kill"), PidsMax: keyed(g.pids, "max")}
}

// number reads a file that holds one; -1 when it cannot.
func number(f *os.File) int64 {
	var buf [32]byte
	if f == nil {
		return -1
	}
	n, _ := f.ReadAt(buf[:], 0) // EOF is usual
	v, err := strconv.ParseInt(strings.TrimSpace(string(buf[:n])), 10, 64)
	if err != nil {
		return -1
	}
	return v
}

// keyed reads "name value" from a file of such lines; 0 when it isn't there.
func keyed(f *os.File, name string) int64 {
	var buf [512]byte
	n, _ := f.ReadAt(buf[:], 0) // EOF is usual
	for line := range strings.Lines(string(buf[:n])) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if key == name {
			v, _ := strconv.ParseInt(value, 10, 64) // the kernel writes numbers
			return v
		}
	}
	return 0
}
