package main

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// anonymous is the memory of a process and all that it started, in bytes: the
// anonymous part of their proportional set size, which is what they hold of their own.
func anonymous(pid int) (int64, error) { return rollup(pid, "smaps_rollup", "Pss_Anon:") }

// proportional is the whole proportional set size of a process and all that it
// started, in bytes: the binary's pages too, shared out over those that map them.
func proportional(pid int) (int64, error) { return rollup(pid, "smaps_rollup", "Pss:") }

// rollup sums a line of a file of /proc/PID, in kB there, over a process and all that it started.
func rollup(pid int, file, key string) (int64, error) {
	tree, err := descendants(pid)
	if err != nil {
		return 0, err
	}
	var sum int64
	for i, p := range tree {
		text := field(fmt.Sprintf("/proc/%d/%s", p, file), key)
		kb, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(text, "kB")), 10, 64)
		if err != nil {
			if i > 0 {
				continue // a child that has ended
			}
			return 0, fmt.Errorf("read the memory of process %d: it has ended, or the kernel does not tell", p)
		}
		sum += kb << 10
	}
	return sum, nil
}

// descendants lists a process, first, and all that it started.
func descendants(pid int) ([]int, error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	children := map[int][]int{}
	for _, path := range stats {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		// The name in parentheses may hold anything; the state and the parent follow it.
		_, rest, ok := strings.Cut(string(b[max(0, strings.LastIndexByte(string(b), ')')):]), ") ")
		f := strings.Fields(rest)
		if !ok || len(f) < 2 {
			continue
		}
		child, err1 := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		parent, err2 := strconv.Atoi(f[1])
		if err1 == nil && err2 == nil {
			children[parent] = append(children[parent], child)
		}
	}
	tree := []int{pid}
	for i := 0; i < len(tree); i++ {
		tree = append(tree, children[tree[i]]...)
	}
	return tree, nil
}

// sample is the memory at a moment of a run.
type sample struct {
	done   float64 // share of the partitions that are over
	memory float64 // bytes
}

// floors are the least memory in each of so many equal stretches from the share
// of from on: what is held when no garbage lies and no batch is on its way. A stretch without a
// sample is left out.
func floors(samples []sample, from float64, stretches int) []sample {
	least := make([]sample, stretches)
	for i := range least {
		least[i] = sample{done: from + (1-from)*(float64(i)+0.5)/float64(stretches), memory: math.Inf(1)}
	}
	for _, s := range samples {
		if s.done >= from {
			i := min(stretches-1, int((s.done-from)/(1-from)*float64(stretches)))
			least[i].memory = min(least[i].memory, s.memory)
		}
	}
	return slices.DeleteFunc(least, func(s sample) bool { return math.IsInf(s.memory, 1) })
}

// growth fits a line through the floors of the samples from the share of from on, and gives the
// memory by it at from and at the end. A collected heap goes up and down by more than
// what a leak would add; a leak raises its floor.
func growth(samples []sample, from float64) (begin, end float64, ok bool) {
	var n, sx, sy, sxx, sxy float64
	for _, s := range floors(samples, from, stretches) {
		n++
		sx, sy = sx+s.done, sy+s.memory
		sxx, sxy = sxx+s.done*s.done, sxy+s.done*s.memory
	}
	d := n*sxx - sx*sx
	if n < stretches || d == 0 {
		return 0, 0, false
	}
	slope := (n*sxy - sx*sy) / d
	at := func(x float64) float64 { return sy/n + slope*(x-sx/n) }
	return at(from), at(1), true
}

// stretches is into how many parts the last half of a run is divided: each long enough to hold an
// undisturbed moment, and enough of them for a line.
const stretches = 4
