package main

import (
	"bufio"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Machine is where figures were taken.
type Machine struct {
	CPU        string `json:"cpu"`
	Processors int    `json:"processors"`
	MemoryMB   int64  `json:"memory_mb"`
	Kernel     string `json:"kernel"`
	Go         string `json:"go"` // of this program
	Load       string `json:"load"`
}

func (m Machine) String() string {
	return fmt.Sprintf("%s, %d processors, %d MB, Linux %s, %s; load before: %s", m.CPU, m.Processors, m.MemoryMB, m.Kernel, m.Go, m.Load)
}

// tmpfsMagic is what statfs says of a file system in memory.
const tmpfsMagic = 0x01021994

// describe tells what machine this is. It refuses a directory in memory: there
// a sync costs nothing.
func describe(dir string) (Machine, error) {
	var fsys syscall.Statfs_t
	if err := syscall.Statfs(dir, &fsys); err != nil {
		return Machine{}, fmt.Errorf("look at the file system of %s: %w", dir, err)
	}
	if fsys.Type == tmpfsMagic {
		return Machine{}, fmt.Errorf("%s is in memory, where nothing is durable: name a directory on disk by -dir", dir)
	}
	if free := int64(fsys.Bavail) * fsys.Bsize; free < maxDisk {
		return Machine{}, fmt.Errorf("%s has %d MB free, and %d may be needed: name another by -dir", dir, free>>20, int64(maxDisk)>>20)
	}
	m := Machine{Processors: runtime.NumCPU(), Go: runtime.Version()}
	m.CPU = strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(field("/proc/cpuinfo", "model name")), ":"))
	if kb, err := strconv.ParseInt(strings.Fields(field("/proc/meminfo", "MemTotal:") + " 0")[0], 10, 64); err == nil {
		m.MemoryMB = kb >> 10
	}
	m.Kernel = content("/proc/sys/kernel/osrelease")
	if load := strings.Fields(content("/proc/loadavg")); len(load) > 0 {
		m.Load = load[0]
	}
	return m, nil
}

func content(path string) string {
	b, _ := os.ReadFile(path)
	return strings.TrimSpace(string(b))
}

// field is the rest of the first line of a file that begins with key; "" if there is none.
func field(path, key string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), key); ok {
			return rest
		}
	}
	return ""
}

// maxDisk is what a part may write, in bytes. A million results and commands with their logs
// take a sixteenth of it; more is a leak that must not fill the machine's disk.
const maxDisk = 4 << 30

// diskEvery is how often what was written is summed up.
const diskEvery = 2 * time.Second

// guardDisk fails a part that writes too much.
func guardDisk(ctx context.Context, dir string, fail context.CancelCauseFunc) {
	tick := time.NewTicker(diskEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if n := diskUsed(dir); n > maxDisk {
				fail(fmt.Errorf("the agents wrote %d MB, and %d is the most that they may", n>>20, int64(maxDisk)>>20))
				return
			}
		}
	}
}

// diskUsed is what the files below dir take on disk, in bytes.
func diskUsed(dir string) int64 {
	var sum int64
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil // gone meanwhile
		}
		if info, err := d.Info(); err == nil {
			if st, ok := info.Sys().(*syscall.Stat_t); ok {
				sum += st.Blocks * 512
			}
		}
		return nil
	})
	return sum
}
