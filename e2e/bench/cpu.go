package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// tick is the unit in which the kernel tells processor time to programs, on every machine.
const tick = time.Second / 100

// computed is the processor time of a process and of all below it that live, or that it waited for.
func computed(pid int) time.Duration {
	tree, err := descendants(pid)
	if err != nil {
		return 0
	}
	var sum time.Duration
	for _, p := range tree {
		_, stat, _ := strings.Cut(content(fmt.Sprintf("/proc/%d/stat", p)), ") ")
		for i, f := range strings.Fields(stat) {
			if n, err := strconv.ParseInt(f, 10, 64); err == nil && i >= 11 && i <= 14 { // utime, stime, cutime, cstime
				sum += time.Duration(n) * tick
			}
		}
	}
	return sum
}

// addCPU adds what the agent and all that it started have used for each of n partitions. Unlike a rate it
// is about the same on a busy machine. The agent has been stopped.
func (b *bench) addCPU(a *process, n int) {
	s := a.cmd.ProcessState
	b.add(Figure{What: "processor time of all of it for a partition", Value: float64((s.UserTime() + s.SystemTime()).Microseconds()) / float64(n), Unit: "µs", AtMost: true})
}
