package checkpoint

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/sheaf-run/agent/data/output"
	"github.com/sheaf-run/agent/sheaf"
)

func mustOpen(t *testing.T, path string) *File {
	t.Helper()
	damaged, f, err := Open(path)
	if err != nil || damaged != nil {
		t.Fatal(err, damaged)
	}
	return f
}

// TestSurvivesReopening: what was saved and not removed is there again, whole.
func TestSurvivesReopening(t *testing.T) {
	path := filepath.Join(t.TempDir(), "client.db")
	f := mustOpen(t, path)
	one := Execution{
		Run: "r", Partition: 3, Attempt: 2, Generation: 1, Driver: "containerd", State: []byte{1, 2, 255},
		Started: time.Unix(1_800_000_000, 5).UTC(), Outputs: []output.Dir{{Name: "o", Host: "/h", Target: "/out"}},
	}
	two := Execution{Run: "r", Partition: 4, Attempt: 1, Driver: "containerd"}
	if err := f.Save([]Execution{one, two}, map[sheaf.RunID][]byte{"r": []byte("spec"), "s": []byte("old")}); err != nil {
		t.Fatal(err)
	}
	if err := f.Remove([]string{"r.4.1", "not.there.1"}); err != nil {
		t.Fatal(err)
	}
	for _, id := range []sheaf.RunID{"s", "unknown"} {
		if err := f.RemoveRun(id); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.SetValue("node_id", "n1"); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}

	f = mustOpen(t, path)
	defer f.Close()
	list, specs, err := f.Load()
	if err != nil {
		t.Fatal(err)
	}
	if len(list) != 1 || !reflect.DeepEqual(list[0], one) {
		t.Errorf("loaded %+v, saved %+v", list, one)
	}
	if len(specs) != 1 || string(specs["r"]) != "spec" {
		t.Errorf("specs are %q", specs)
	}
	if v, err := f.Value("node_id"); v != "n1" || err != nil {
		t.Errorf("node_id is %q, %v", v, err)
	}
	if v, err := f.Value("none"); v != "" || err != nil {
		t.Errorf("a setting that was never made is %q, %v", v, err)
	}
}

// TestDamagedIsSetAside: a file that is no checkpoint keeps no client from
// starting, and is kept to be looked at.
func TestDamagedIsSetAside(t *testing.T) {
	path := filepath.Join(t.TempDir(), "client.db")
	f := mustOpen(t, path)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range b[:8192] {
		b[i] ^= 0x55
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	damaged, f, err := Open(path)
	if err != nil || damaged == nil {
		t.Fatalf("opened with %v, damage %v", err, damaged)
	}
	defer f.Close()
	if _, err := os.Stat(path + ".damaged"); err != nil {
		t.Error(err)
	}
}

func TestSecondProcessIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "client.db")
	defer mustOpen(t, path).Close()
	if _, _, err := Open(path); sheaf.ClassOf(err) != sheaf.Conflict {
		t.Errorf("opened a second time with %v", err)
	}
}

// TestNewerVersion: the file of a newer version is refused and stays as it is, to the byte.
func TestNewerVersion(t *testing.T) {
	path := filepath.Join(t.TempDir(), "client.db")
	_, f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.SetValue("format", "2"); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	damaged, _, err := Open(path)
	if damaged != nil || sheaf.ClassOf(err) != sheaf.Conflict || !strings.Contains(err.Error(), "newer version") {
		t.Errorf("opened: %v, %v", damaged, err)
	}
	if after, err := os.ReadFile(path); err != nil || !bytes.Equal(before, after) {
		t.Errorf("it was touched: %v", err)
	}
}
