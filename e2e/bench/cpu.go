package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// tick is the unit in which the kernel tells programs the processor time of processes that have ended, on every machine.
const tick = time.Second / 100

// computed is the processor time of a process and of all below it that live, or that it waited for.
func computed(pid int) time.Duration {
	tree, err := descendants(pid)
	if err != nil {
		return 0
	}
	var sum time.Duration
	for _, p := range tree {
		var own unix.Timespec
		if unix.ClockGettime(processorClock(p), &own) == nil {
			sum += time.Duration(own.Nano())
		}
		_, stat, _ := strings.Cut(content(fmt.Sprintf("/proc/%d/stat", p)), ") ")
		for i, f := range strings.Fields(stat) {
			if n, err := strconv.ParseInt(f, 10, 64); err == nil && (i == 13 || i == 14) { // cutime, cstime
				sum += time.Duration(n) * tick
			}
		}
	}
	return sum
}

// processorClock is the clock of the processor time of all threads of a process, as clock_getcpuclockid(3) gives it: in
// nanoseconds, where /proc has ticks.
func processorClock(pid int) int32 {
	const scheduled = 2
	return int32(^pid<<3 | scheduled)
}

// addCPU adds what the agent and all that it started have used for each of n partitions of a kind. Unlike a rate it
// is about the same on a busy machine. The agent has been stopped.
func (b *bench) addCPU(a *process, kind string, n int) {
	s := a.cmd.ProcessState
	b.add(Figure{What: "processor time of all of it for a " + kind, Value: float64((s.UserTime() + s.SystemTime()).Microseconds()) / float64(n), Unit: "µs", AtMost: true})
}
