package containerd

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// cgroups is where the kernel's cgroup trees are mounted.
const cgroups = "/sys/fs/cgroup"

// usage is what a container's cgroup counted. It is read after the program's end
// and before the container is removed.
type usage struct {
	cpu      time.Duration
	peak     int64 // bytes
	oomKills int64
	pidsHits int64
}

func usageOf(id string) usage {
	if _, err := os.Stat(filepath.Join(cgroups, "memory", cgroupRoot, id)); err == nil {
		return usage{
			cpu:      time.Duration(number("cpuacct", id, "cpuacct.usage")),
			peak:     number("memory", id, "memory.max_usage_in_bytes"),
			oomKills: field("memory", id, "memory.oom_control", "oom_kill"),
			pidsHits: field("pids", id, "pids.events", "max"),
		}
	}
	return usage{
		cpu:      time.Duration(field("", id, "cpu.stat", "usage_usec")) * time.Microsecond,
		peak:     number("", id, "memory.peak"),
		oomKills: field("", id, "memory.events", "oom_kill"),
		pidsHits: field("", id, "pids.events", "max"),
	}
}

func text(controller, id, file string) string {
	b, err := os.ReadFile(filepath.Join(cgroups, controller, cgroupRoot, id, file))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// number is a file's one number, 0 where it cannot be read.
func number(controller, id, file string) int64 {
	n, _ := strconv.ParseInt(text(controller, id, file), 10, 64)
	return n
}

// field is the number behind a name in a file of names and numbers.
func field(controller, id, file, name string) int64 {
	for line := range strings.SplitSeq(text(controller, id, file), "\n") {
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			n, _ := strconv.ParseInt(rest, 10, 64)
			return n
		}
	}
	return 0
}

// swapCounted reports whether the kernel can limit memory and swap together. Where
// it cannot, asking for it is an error.
var swapCounted = sync.OnceValue(func() bool {
	_, err := os.Stat(filepath.Join(cgroups, "memory", "memory.memsw.limit_in_bytes"))
	return err == nil
})
