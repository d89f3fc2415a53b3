package fingerprint

import (
	"runtime"
	"testing"

	"github.com/sheaf-run/agent/sheaf"
)

func TestCPU(t *testing.T) {
	two := []byte("processor : 0\ncpu MHz\t\t: 2400.5\n\nprocessor : 1\ncpu MHz\t\t: 2400.5\n")
	for _, tc := range []struct {
		name    string
		cpuinfo []byte
		maxKHz  []byte
		n, want int
	}{
		{"the most it can do", two, []byte("3000000\n"), 2, 6000},
		{"what it does", two, nil, 2, 4801},
		{"fewer processors than the machine has", two, nil, 1, 2400},
		{"one that tells nothing", two, nil, 3, 4801 + fallbackMHz},
		{"none that tells", nil, []byte("nonsense"), 2, 2 * fallbackMHz},
	} {
		if got := cpuMHz(tc.cpuinfo, tc.maxKHz, tc.n); got != tc.want {
			t.Errorf("%s: %d MHz, want %d", tc.name, got, tc.want)
		}
	}
}

func TestPick(t *testing.T) {
	for _, tc := range []struct{ override, measured, reserve, want int }{
		{0, 100, 30, 70}, {0, 100, 200, 0}, {50, 100, 30, 50}, {500, 100, 0, 500},
	} {
		if got := pick(tc.override, tc.measured, tc.reserve); got != tc.want {
			t.Errorf("%+v: %d", tc, got)
		}
	}
}

func TestParts(t *testing.T) {
	if got := memoryBytes([]byte("MemFree: 5 kB\nMemTotal:       16384 kB\n")); got != 16<<20 {
		t.Errorf("memory is %v", got)
	}
	if got := pids([]byte("4194304\n"), []byte("1000\n")); got != 750 {
		t.Errorf("%d processes of 1000", got)
	}
	if got := pids(nil, nil); got != fallbackPids/4*3 {
		t.Errorf("%d processes where nothing is told", got)
	}
}

// TestThisMachine: every resource of the machine that runs the test is found,
// and configuration has the last word.
func TestThisMachine(t *testing.T) {
	fp, err := Measure(Options{DataDir: t.TempDir(), Override: sheaf.Resources{Pids: 77}, Extra: map[string]string{"rack": "r1"}})
	if err != nil {
		t.Fatal(err)
	}
	r := fp.Resources
	if r.CPU <= 0 || r.Memory <= 1<<20 || r.Disk <= 0 || r.Pids != 77 {
		t.Errorf("resources are %+v", r)
	}
	if fp.Attributes["cpu.arch"] != runtime.GOARCH || fp.Attributes["rack"] != "r1" || fp.Attributes["kernel.version"] == "" || fp.Attributes["cgroup.version"] == "" {
		t.Errorf("attributes are %v", fp.Attributes)
	}
	if _, err := Measure(Options{DataDir: "/nonexistent"}); err == nil {
		t.Error("the disk of a directory that is not there was measured")
	}
}
