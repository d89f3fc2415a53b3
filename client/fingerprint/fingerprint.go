// Package fingerprint measures what a node has for executions: processor time
// in MHz, memory, disk and processes, and the attributes that jobs may ask for.
// It reads /proc and the file system, and changes nothing.
package fingerprint

import (
	"bufio"
	"bytes"
	"fmt"
	"maps"
	"os"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sheaf-run/agent/sheaf"
)

const (
	// fallbackMHz stands for a processor that tells no frequency, as virtual ones do.
	fallbackMHz = 2000
	// fallbackPids is the kernel's own default, where it does not tell.
	fallbackPids = 32768
	// maxPidsShare: of so many parts of the kernel's processes, executions get all but one.
	maxPidsShare = 4
)

// Options adjust what is measured.
type Options struct {
	DataDir  string            // its file system is the disk
	Override sheaf.Resources   // fields that are set replace what is measured
	Reserve  sheaf.Resources   // taken off what is measured, not off an override
	Extra    map[string]string // attributes added
}

// Fingerprint is what a node has.
type Fingerprint struct {
	Resources  sheaf.Resources
	Attributes map[string]string
}

// Measure looks at the node.
func Measure(o Options) (Fingerprint, error) {
	r, err := resources(o)
	if err != nil {
		return Fingerprint{}, err
	}
	attrs := attributes()
	attrs["memory.bytes"] = strconv.FormatInt(int64(r.Memory), 10)
	maps.Copy(attrs, o.Extra)
	return Fingerprint{Resources: r, Attributes: attrs}, nil
}

func resources(o Options) (sheaf.Resources, error) {
	var r sheaf.Resources
	r.CPU = pick(o.Override.CPU, cpuMHz(readFile("/proc/cpuinfo"), readFile("/sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq"), runtime.NumCPU()), o.Reserve.CPU)
	memory := memoryBytes(readFile("/proc/meminfo"))
	if limit := cgroupMemory(); limit > 0 {
		memory = min(memory, limit)
	}
	r.Memory = pick(o.Override.Memory, memory, o.Reserve.Memory)
	r.Pids = pick(o.Override.Pids, pids(readFile("/proc/sys/kernel/pid_max"), readFile("/proc/sys/kernel/threads-max")), o.Reserve.Pids)
	var st unix.Statfs_t
	if err := unix.Statfs(o.DataDir, &st); err != nil {
		return r, fmt.Errorf("measure the disk of %s: %w", o.DataDir, err)
	}
	r.Disk = pick(o.Override.Disk, sheaf.Size(int64(st.Bavail)*st.Bsize), o.Reserve.Disk)
	return r, nil
}

// pick is the override where there is one, else what was measured less the
// reserve, and never below 0.
func pick[T ~int | ~int64](override, measured, reserve T) T {
	if override > 0 {
		return override
	}
	return max(measured-reserve, 0)
}

// cpuMHz sums the frequencies of n processors: the most the first can do where
// the kernel tells, else what /proc/cpuinfo shows of each.
func cpuMHz(cpuinfo, maxKHz []byte, n int) int {
	if khz, err := strconv.Atoi(string(bytes.TrimSpace(maxKHz))); err == nil && khz > 0 {
		return khz / 1000 * n
	}
	sum, seen := 0.0, 0
	for sc := bufio.NewScanner(bytes.NewReader(cpuinfo)); sc.Scan() && seen < n; {
		name, value, ok := strings.Cut(sc.Text(), ":")
		if !ok || strings.TrimSpace(name) != "cpu MHz" {
			continue
		}
		if mhz, err := strconv.ParseFloat(strings.TrimSpace(value), 64); err == nil && mhz > 0 {
			sum += mhz
			seen++
		}
	}
	return int(sum) + (n-seen)*fallbackMHz
}

// memoryBytes is the machine's memory, from /proc/meminfo.
func memoryBytes(meminfo []byte) sheaf.Size {
	for sc := bufio.NewScanner(bytes.NewReader(meminfo)); sc.Scan(); {
		if f := strings.Fields(sc.Text()); len(f) >= 2 && f[0] == "MemTotal:" {
			if kib, err := strconv.ParseInt(f[1], 10, 64); err == nil {
				return sheaf.Size(kib << 10)
			}
		}
	}
	return 0
}

// cgroupMemory is the limit that this process itself is under, 0 for none.
func cgroupMemory() sheaf.Size {
	for _, p := range []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		if n, err := strconv.ParseInt(string(bytes.TrimSpace(readFile(p))), 10, 64); err == nil && n > 0 && n < 1<<60 {
			return sheaf.Size(n)
		}
	}
	return 0
}

func pids(pidMax, threadsMax []byte) int {
	n := 0
	for _, b := range [][]byte{pidMax, threadsMax} {
		if v, err := strconv.Atoi(string(bytes.TrimSpace(b))); err == nil && v > 0 && (n == 0 || v < n) {
			n = v
		}
	}
	if n == 0 {
		n = fallbackPids
	}
	return n / maxPidsShare * (maxPidsShare - 1)
}

func attributes() map[string]string {
	a := map[string]string{
		"os.name":        runtime.GOOS,
		"cpu.arch":       runtime.GOARCH,
		"cpu.cores":      strconv.Itoa(runtime.NumCPU()),
		"cgroup.version": cgroupVersion(),
	}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		a["kernel.name"] = strings.ToLower(unix.ByteSliceToString(u.Sysname[:]))
		a["kernel.version"] = unix.ByteSliceToString(u.Release[:])
	}
	if host, err := os.Hostname(); err == nil {
		a["hostname"] = host
	}
	for line := range strings.Lines(string(readFile("/etc/os-release"))) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		switch value = strings.Trim(value, `"'`); name {
		case "ID":
			a["os.distribution"] = value
		case "VERSION_ID":
			a["os.version"] = value
		}
	}
	return a
}

// cgroupVersion is "2" where the unified tree has controllers, else "1"; a
// machine may have an empty second tree beside the first.
func cgroupVersion() string {
	var st unix.Statfs_t
	if unix.Statfs("/sys/fs/cgroup", &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC {
		return "2"
	}
	if _, err := os.Stat("/sys/fs/cgroup/memory"); err == nil {
		return "1"
	}
	return "none"
}

func readFile(path string) []byte {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	return b
}
