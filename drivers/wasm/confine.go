package wasm

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/landlock-lsm/go-landlock/landlock"
	"golang.org/x/sys/unix"
)

// A worker is the second wall around a guest, behind wazero and guestfs: should
// a guest break out of both, it is in a process that reaches little.

const (
	// workerFiles bounds the descriptors of a worker, its guest's open files among them.
	workerFiles = 1024
	// workerData is what a worker may map for writing beside its guest's memory and what
	// it had at its start: Go's heap (mapped 64 MiB at a time), the guest's call stack and tables.
	workerData = 256 << 20
	// compilerData is the same while a module is compiled; Go's own
	// distribution compiled to a module stays far below it.
	compilerData = 4 << 30
	// oomScore makes the kernel, when memory runs out, choose a worker before the agent.
	oomScore = "500"
)

// tieToDriver has the kernel kill this process when the other end of the pipe
// fd closes, whatever the process does then: a guest in an endless loop can keep
// Go's scheduler from running anything else. Nothing is ever written to that pipe.
func tieToDriver(fd uintptr) error {
	for _, set := range []struct{ cmd, arg int }{
		{unix.F_SETOWN, os.Getpid()},
		{unix.F_SETSIG, int(unix.SIGKILL)},
		{unix.F_SETFL, unix.O_ASYNC},
	} {
		if _, err := unix.FcntlInt(fd, set.cmd, set.arg); err != nil {
			return fmt.Errorf("tie worker to its driver: %w", err)
		}
	}
	// The driver may have ended before the signal was set up.
	gone := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	if n, _ := unix.Poll(gone, 0); n > 0 {
		return fmt.Errorf("tie worker to its driver: it has ended")
	}
	return nil
}

// restrict bounds this process for good.
func restrict(s setup) error {
	// Raising one's own score needs no privilege; where /proc is not there, the default stays.
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte(oomScore), 0)
	for _, l := range []struct {
		resource int
		most     uint64
	}{{unix.RLIMIT_NOFILE, workerFiles}, {unix.RLIMIT_CORE, 0}} {
		if err := unix.Setrlimit(l.resource, &unix.Rlimit{Cur: l.most, Max: l.most}); err != nil {
			return fmt.Errorf("limit worker: %w", err)
		}
	}
	if !s.confine {
		return nil
	}
	rules := []landlock.Rule{
		landlock.RODirs(s.readOnly...).IgnoreIfMissing(),
		landlock.RWDirs(s.writable...).IgnoreIfMissing().WithRefer(),
	}
	if err := landlock.V11.BestEffort().Restrict(rules...); err != nil {
		return fmt.Errorf("confine worker: %w", err)
	}
	return nil
}

// dataLimit holds RLIMIT_DATA, which counts private writable mappings, to what
// the present work may take. Only the soft limit moves; a guest makes no system calls.
type dataLimit struct {
	start uint64 // what this process had mapped before any guest
	now   uint64
}

func newDataLimit() dataLimit {
	stat, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return dataLimit{}
	}
	const data = 5 // the sixth field of proc_pid_statm(5), in pages
	fields := strings.Fields(string(stat))
	if len(fields) <= data {
		return dataLimit{}
	}
	pages, _ := strconv.ParseUint(fields[data], 10, 64)
	return dataLimit{start: pages * uint64(os.Getpagesize())}
}

// set allows bytes beside what the process began with.
func (l *dataLimit) set(bytes uint64) error {
	if l.now == bytes {
		return nil
	}
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_DATA, &old); err != nil {
		return fmt.Errorf("limit worker's memory: %w", err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_DATA, &unix.Rlimit{Cur: min(l.start+bytes, old.Max), Max: old.Max}); err != nil {
		return fmt.Errorf("limit worker's memory: %w", err)
	}
	l.now = bytes
	return nil
}

// canConfine reports whether the kernel has Landlock.
func canConfine() bool {
	const createRulesetVersion = 1 // LANDLOCK_CREATE_RULESET_VERSION
	abi, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, createRulesetVersion)
	return errno == 0 && abi > 0
}
