package store

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sheaf-run/agent/data/output"
	"github.com/sheaf-run/agent/sheaf"
)

// fullDisk mounts a small file system of its own.
func fullDisk(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Fatalf("mount a small tmpfs (this test needs root): %v", err)
	}
	t.Cleanup(func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	var st unix.Statfs_t
	must(t, unix.Statfs(dir, &st))
	if st.Type != unix.TMPFS_MAGIC || st.Blocks*uint64(st.Bsize) > 16<<20 {
		t.Fatalf("%s is not the small tmpfs", dir)
	}
	return dir
}

// fill takes all room but some bytes, and gives it back.
func fill(t *testing.T, dir string, but int64) (free func()) {
	t.Helper()
	name := filepath.Join(dir, "ballast")
	var st unix.Statfs_t
	must(t, unix.Statfs(dir, &st))
	f, err := os.Create(name)
	must(t, err)
	defer f.Close()
	if n := int64(st.Bavail)*st.Bsize - but; n > 0 {
		must(t, unix.Fallocate(int(f.Fd()), 0, 0, n))
	}
	return func() { must(t, os.Remove(name)) }
}

func TestFullDisk(t *testing.T) {
	dir := fullDisk(t, "8m")
	s := open(t, filepath.Join(dir, "store"))
	r := run(t, s)
	add(t, r, record(0, 1), "x", "")
	must(t, s.Sync())

	free := fill(t, dir, 0)
	for p := range 300 { // more than fits into the room that a segment's last page has
		add(t, r, record(p, 2), strings.Repeat("y", 100), "")
	}
	add(t, r, record(9000, 2), "in another stretch of the index", "")
	for range 3 {
		err := s.Sync()
		if sheaf.ClassOf(err) != sheaf.Unavailable || !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), dir) {
			t.Fatalf("sync on a full disk: %v", err)
		}
	}
	if _, err := r.Record(9000, 2); sheaf.ClassOf(err) != sheaf.NotFound {
		t.Errorf("a record that is not durable: %v", err)
	}
	if got := readLog(t, r, 7, 2, false); !strings.HasPrefix(got, "yyy") {
		t.Errorf("the log of an attempt that waits: %q", got)
	}
	if _, err := r.OutputDirs(Key{1, 3}, []string{"o"}); err != nil && sheaf.ClassOf(err) != sheaf.Unavailable {
		t.Errorf("output directories: %v", err)
	}
	free()
	must(t, s.Sync())
	check := func() {
		t.Helper()
		for p := range 300 {
			if _, err := r.Record(p, 2); err != nil {
				t.Fatalf("record %d: %v", p, err)
			}
		}
		for _, p := range []int{0, 9000} {
			if _, err := r.Record(p, 0); err != nil {
				t.Errorf("record %d: %v", p, err)
			}
		}
		if d := s.Damaged(); len(d) > 0 {
			t.Errorf("damage: %v", d)
		}
	}
	check()
	crash(s)
	s = open(t, filepath.Join(dir, "store"))
	r = run(t, s)
	check()
	must(t, s.Close())
}

// TestLogsOnAFullDisk: logs go on in the room they have, head and tail.
func TestLogsOnAFullDisk(t *testing.T) {
	dir := fullDisk(t, "8m")
	s := open(t, filepath.Join(dir, "store"))
	r := run(t, s)
	for _, c := range []struct {
		name  string
		first int   // bytes written before the disk is full
		but   int64 // bytes left then
	}{{"no file yet", 100, 0}, {"in the head", 40 << 10, 4 << 10}, {"at the ring", 140 << 10, 0}} {
		k := Key{c.first, 1}
		l, err := r.Logs(k)
		must(t, err)
		must(t, l.Write(false, stream(0, c.first)))
		free := fill(t, dir, c.but)
		const total = 3 << 20
		for n := c.first; n < total; n += 4096 {
			if err := l.Write(false, stream(n, min(4096, total-n))); err != nil {
				t.Fatalf("%s: write at %d: %v", c.name, n, err)
			}
		}
		free()
		must(t, r.Append(record(k.Partition, 1), l))
		must(t, s.Sync())
		lr, err := r.OpenLog(context.Background(), k.Partition, 1, false, false)
		must(t, err)
		off, data, dropped := keptOf(t, lr)
		have := int64(0)
		for i := range off {
			if string(data[i]) != string(stream(int(off[i]), len(data[i]))) {
				t.Fatalf("%s: wrong bytes at %d", c.name, off[i])
			}
			have += int64(len(data[i]))
		}
		if have+dropped != total || have < 4096 || dropped == 0 || off[0] != 0 {
			t.Errorf("%s: %d bytes kept, %d dropped of %d", c.name, have, dropped, total)
		}
		must(t, lr.Close())
	}
	must(t, s.Close())
}

func TestMergedManifestOnAFullDisk(t *testing.T) {
	dir := fullDisk(t, "8m")
	s := open(t, filepath.Join(dir, "store"))
	defer s.Close()
	r := run(t, s)
	w, err := r.CreateMerged(1)
	must(t, err)
	line := output.Manifest{Files: []sheaf.File{{Output: "o", Path: strings.Repeat("p", 1000)}}}.Encode()
	for err == nil {
		_, err = w.Write(line)
	}
	if sheaf.ClassOf(err) != sheaf.Unavailable || !strings.Contains(err.Error(), dir) {
		t.Errorf("write: %v", err)
	}
	must(t, w.Close())
	add(t, r, record(1, 1), "", "")
	must(t, s.Sync())
}
