package store

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/sheaf-run/agent/data/output"
	"github.com/sheaf-run/agent/sheaf"
)

type fataler interface {
	Helper()
	Fatalf(string, ...any)
}

func must(t fataler, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%v", err)
	}
}

func open(t fataler, dir string) *Store {
	t.Helper()
	s, err := Open(dir, Options{LogLimit: 256 << 10})
	must(t, err)
	return s
}

func run(t fataler, s *Store) *Run {
	t.Helper()
	r, err := s.Run("run-1")
	must(t, err)
	return r
}

// crash lets go of a store as the end of its process would.
func crash(s *Store) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for _, r := range s.open {
		_ = r.closeFiles(markNever)
	}
	s.lock.Close()
}

func record(p int, attempt uint32) Record {
	return Record{
		Partition: p, Attempt: attempt, Generation: 2, Outcome: sheaf.OutcomeFailed, Failure: sheaf.FailExit, ExitCode: -1,
		Started: time.UnixMilli(1_700_000_000_123), Duration: 1500 * time.Millisecond, CPU: 20 * time.Millisecond, PeakMemory: 5 << 20,
		Message: fmt.Sprintf("exit code 3 of %d.%d", p, attempt), Manifest: []byte("not empty\n"), Digest: [32]byte{1, byte(p)},
	}
}

func add(t fataler, r *Run, rec Record, stdout, stderr string) {
	t.Helper()
	var l *Logs
	if stdout+stderr != "" {
		var err error
		l, err = r.Logs(Key{rec.Partition, rec.Attempt})
		must(t, err)
		must(t, l.Write(false, []byte(stdout)))
		must(t, l.Write(true, []byte(stderr)))
	}
	must(t, r.Append(rec, l))
}

func readLog(t fataler, r *Run, p int, attempt uint32, stderr bool) string {
	t.Helper()
	lr, err := r.OpenLog(nil, p, attempt, stderr, false) //nolint:staticcheck // nothing waits without follow
	must(t, err)
	defer lr.Close()
	var b strings.Builder
	for {
		piece, err := lr.Next()
		if err != nil {
			return b.String()
		}
		if piece.Dropped > 0 {
			fmt.Fprintf(&b, "[%d]", piece.Dropped)
		}
		b.Write(piece.Data)
	}
}

func TestRecordsComeBack(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	r := run(t, s)
	if _, err := os.Stat(r.dir); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("the run is on disk before its first write: %v", err)
	}
	want := map[Key]Record{}
	for _, k := range []Key{{0, 1}, {300, 1}, {300, 3}, {300, 2}, {7, 1}, {5_000, 4}} {
		rec := record(k.Partition, k.Attempt)
		add(t, r, rec, "out", "")
		rec.Stdout.Size = 3
		want[k] = rec
	}
	ok := Record{Partition: 8, Attempt: 1, Outcome: sheaf.OutcomeSucceeded, Digest: output.Digest(nil)}
	must(t, r.Append(ok, nil))
	want[Key{8, 1}] = ok
	if _, err := r.Record(7, 1); sheaf.ClassOf(err) != sheaf.NotFound {
		t.Errorf("a record is read before it is durable: %v", err)
	}
	must(t, s.Sync())
	add(t, r, record(300, 2), "another", "") // the same attempt again changes nothing
	must(t, s.Sync())
	check := func() {
		t.Helper()
		for k, rec := range want {
			got, err := r.Record(k.Partition, k.Attempt)
			if err != nil || !reflect.DeepEqual(got, rec) {
				t.Errorf("%v: got %+v (%v), want %+v", k, got, err, rec)
			}
		}
		if got, err := r.Record(300, 0); err != nil || got.Attempt != 3 {
			t.Errorf("the latest of 300 is %d (%v)", got.Attempt, err)
		}
		if got := readLog(t, r, 300, 2, false); got != "out" {
			t.Errorf("stdout is %q", got)
		}
		var seen []string
		for rec, err := range r.Records([]Span{{6, 3, 0}, {300, 1, 2}}) {
			seen = append(seen, fmt.Sprint(rec.Partition, ".", rec.Attempt, " ", err == nil))
		}
		if fmt.Sprint(seen) != "[6.0 false 7.1 true 8.1 true 300.2 true]" {
			t.Errorf("records: %v", seen)
		}
	}
	check()
	must(t, s.Close())
	s = open(t, dir)
	r = run(t, s)
	check()
	crash(s)
	must(t, os.Remove(filepath.Join(r.dir, "mark")))
	s = open(t, dir)
	r = run(t, s)
	check()
	if d := s.Damaged(); len(d) > 0 {
		t.Errorf("damage: %v", d)
	}
	if ids, err := s.Runs(); err != nil || fmt.Sprint(ids) != "[run-1]" {
		t.Errorf("runs: %v %v", ids, err)
	}
	must(t, s.DeleteRun("run-1"))
	if ids, _ := s.Runs(); len(ids) != 0 {
		t.Errorf("runs after deletion: %v", ids)
	}
	if err := r.Append(record(1, 1), nil); sheaf.ClassOf(err) != sheaf.NotFound {
		t.Errorf("append to a deleted run: %v", err)
	}
	must(t, s.Close())
}

func TestStoreIsHeldByOne(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	if _, err := Open(dir, Options{}); sheaf.ClassOf(err) != sheaf.Conflict {
		t.Errorf("opened twice: %v", err)
	}
	must(t, s.Close())
	must(t, os.WriteFile(filepath.Join(dir, "FORMAT"), []byte("sheaf client store 9\n"), 0o600))
	if _, err := Open(dir, Options{}); sheaf.ClassOf(err) != sheaf.Conflict || !strings.Contains(err.Error(), "store 9") {
		t.Errorf("another format: %v", err)
	}
}

func TestManyRunsShareDescriptors(t *testing.T) {
	s := open(t, t.TempDir())
	defer s.Close()
	for round := range 2 {
		for i := range mostOpenRuns * 2 {
			r, err := s.Run(sheaf.RunID(fmt.Sprintf("r%d", i)))
			must(t, err)
			add(t, r, record(round, 1), "x", "")
			if i%50 == 0 {
				must(t, s.Sync())
			}
		}
		must(t, s.Sync())
	}
	if n := len(s.open); n > mostOpenRuns+1 {
		t.Errorf("%d runs are open", n)
	}
	s.Tidy()
	if n := len(s.open); n != maxOpenRuns {
		t.Errorf("%d runs are open after Tidy, want %d", n, maxOpenRuns)
	}
	n := 0
	must(t, s.Unanswered(func(sheaf.RunID, Record) error { n++; return nil }))
	if n != mostOpenRuns*4 {
		t.Errorf("%d records of %d", n, mostOpenRuns*4)
	}
}

// TestModel runs random histories with restarts and crashes against a map.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp("/dev/shm", "store-model") // in memory: the model asks nothing of the disk
		must(t, err)
		defer os.RemoveAll(dir)
		s := open(t, dir)
		r := run(t, s)
		type item struct{ durable, acked bool }
		model := map[Key]*item{}
		waiting := map[Key]bool{}
		key := rapid.Custom(func(t *rapid.T) Key {
			return Key{rapid.SampledFrom([]int{0, 1, 255, 256, 257, 9000}).Draw(t, "partition"), uint32(rapid.IntRange(1, 4).Draw(t, "attempt"))}
		})
		reopen := func() {
			clear(waiting)
			s = open(t, dir)
			r = run(t, s)
		}
		t.Repeat(map[string]func(*rapid.T){
			"append": func(t *rapid.T) {
				for _, k := range rapid.SliceOfN(key, 1, 8).Draw(t, "keys") {
					if waiting[k] {
						continue // it ends once
					}
					waiting[k] = true
					add(t, r, record(k.Partition, k.Attempt), strings.Repeat("o", k.Partition), "")
					if model[k] == nil {
						model[k] = &item{}
					}
				}
			},
			"sync": func(t *rapid.T) {
				must(t, s.Sync())
				for _, it := range model {
					it.durable = true
				}
				clear(waiting)
			},
			"ack": func(t *rapid.T) {
				keys := rapid.SliceOfN(key, 1, 4).Draw(t, "keys")
				must(t, r.Ack(keys))
				for _, k := range keys {
					if it := model[k]; it != nil && it.durable {
						it.acked = true
					}
				}
			},
			"restart": func(t *rapid.T) {
				clean := rapid.Bool().Draw(t, "clean")
				if clean {
					must(t, s.Close())
				} else {
					crash(s)
				}
				for k, it := range model {
					if !it.durable {
						delete(model, k)
					}
				}
				reopen()
			},
			"lose the index": func(t *rapid.T) {
				crash(s)
				for k, it := range model {
					if !it.durable {
						delete(model, k)
					}
					it.acked = false // a mark may be lost with it, never invented
				}
				os.Remove(filepath.Join(r.dir, "index"))
				reopen()
			},
			"": func(t *rapid.T) {
				latest := map[int]uint32{}
				for k, it := range model {
					got, err := r.Record(k.Partition, k.Attempt)
					if !it.durable {
						if err == nil {
							t.Fatalf("%v is there before it is durable", k)
						}
						continue
					}
					latest[k.Partition] = max(latest[k.Partition], k.Attempt)
					if err != nil || got.Message != record(k.Partition, k.Attempt).Message {
						t.Fatalf("%v: %+v %v", k, got, err)
					}
					if it.acked && !got.Answered {
						t.Fatalf("%v: the answer is gone", k)
					}
					if log := readLog(t, r, k.Partition, k.Attempt, false); len(log) != k.Partition {
						t.Fatalf("%v: a log of %d bytes", k, len(log))
					}
				}
				for p, a := range latest {
					if got, err := r.Record(p, 0); err != nil || got.Attempt != a {
						t.Fatalf("latest of %d: %d, want %d (%v)", p, got.Attempt, a, err)
					}
				}
				open := map[Key]bool{}
				must(t, s.Unanswered(func(_ sheaf.RunID, rec Record) error {
					k := Key{rec.Partition, rec.Attempt}
					if open[k] {
						t.Fatalf("%v comes twice", k)
					}
					open[k] = true
					return nil
				}))
				for k, it := range model {
					if it.durable && !it.acked && !open[k] {
						// Marks that were lost with an index come back as such only here.
						if got, _ := r.Record(k.Partition, k.Attempt); !got.Answered {
							t.Fatalf("%v is neither answered nor listed", k)
						}
					}
					if it.acked && open[k] {
						t.Fatalf("%v was answered and is listed", k)
					}
				}
				if d := s.Damaged(); len(d) > 0 {
					t.Fatalf("damage: %v", d)
				}
			},
		})
		must(t, s.Close())
	})
}

func TestSyncThatFailsEndsTheStore(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	r := run(t, s)
	add(t, r, record(1, 1), "", "")
	must(t, s.Sync())
	fail := errors.New("input/output error")
	s.fsync = func(*os.File) error { return fail }
	add(t, r, record(2, 1), "", "")
	if err := s.Sync(); !errors.Is(err, ErrBroken) || !errors.Is(err, fail) {
		t.Fatalf("sync: %v", err)
	}
	s.fsync = dataSync
	if err := s.Sync(); !errors.Is(err, ErrBroken) {
		t.Errorf("the next sync: %v", err)
	}
	if err := r.Append(record(3, 1), nil); !errors.Is(err, ErrBroken) {
		t.Errorf("append: %v", err)
	}
	if _, err := r.Record(2, 1); sheaf.ClassOf(err) != sheaf.NotFound {
		t.Errorf("the record that was not synced is read: %v", err)
	}
	if _, err := r.Record(1, 1); err != nil {
		t.Errorf("the record before it: %v", err)
	}
	must(t, s.Close())
}

func TestOutputFiles(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	defer func() { must(t, s.Close()) }()
	r := run(t, s)
	for p := range 40 { // enough for either way of syncing
		k := Key{p, 1}
		dirs, err := r.OutputDirs(k, []string{"a", "b"})
		must(t, err)
		for _, d := range dirs {
			must(t, os.MkdirAll(d.Host+"/sub", 0o755))
			must(t, os.WriteFile(d.Host+"/sub/f", []byte(d.Name+fmt.Sprint(p)), 0o644))
		}
		if p == 0 {
			must(t, os.Symlink("/etc/passwd", dirs[0].Host+"/out"))
			must(t, os.Symlink("sub/f", dirs[0].Host+"/in"))
			must(t, os.Symlink("/etc", filepath.Join(filepath.Dir(dirs[0].Host), "c")))
		}
		m := output.Manifest{Files: []sheaf.File{{Output: "a", Path: "sub/f"}, {Output: "b", Path: "sub/f"}}}
		rec := record(p, 1)
		rec.Manifest = m.Encode()
		if p != 39 {
			add(t, r, rec, "", "")
		}
		if p < 3 {
			must(t, s.Sync())
		}
	}
	must(t, s.Sync())
	read := func(k Key, name, path string, off, n int64) string {
		f, err := r.OpenFile(k, name, path, off, n)
		if err != nil {
			return string(sheaf.ClassOf(err))
		}
		defer f.Close()
		var b bytes.Buffer
		_, err = b.ReadFrom(f)
		must(t, err)
		return b.String()
	}
	for _, c := range []struct {
		name, path string
		off, n     int64
		want       string
	}{
		{"a", "sub/f", 0, 0, "a0"}, {"b", "sub/f", 1, 0, "0"}, {"b", "sub/f", 0, 1, "b"}, {"a", "in", 0, 0, "a0"},
		{"a", "out", 0, 0, "invalid"}, {"a", "../b/sub/f", 0, 0, "invalid"}, {"a", "sub", 0, 0, "invalid"}, {"a", "gone", 0, 0, "not_found"},
		{"..", "x", 0, 0, "invalid"}, {"c", "passwd", 0, 0, "invalid"}, {"a", "sub/f/x", 0, 0, "invalid"}, {"a", "sub/f", -1, 0, "invalid"},
	} {
		if got := read(Key{0, 1}, c.name, c.path, c.off, c.n); got != c.want {
			t.Errorf("%s/%s at %d: %q, want %q", c.name, c.path, c.off, got, c.want)
		}
	}
	var strays []Key
	must(t, r.Strays(func(k Key) error { strays = append(strays, k); return nil }))
	if fmt.Sprint(strays) != "[{39 1}]" {
		t.Errorf("strays: %v", strays)
	}
	must(t, r.DeleteOutput(Key{0, 1}))
	must(t, r.DeleteOutput(Key{0, 1}))
	if got := read(Key{0, 1}, "a", "sub/f", 0, 0); got != "not_found" {
		t.Errorf("after deletion: %q", got)
	}
	if _, err := r.Record(0, 1); err != nil {
		t.Errorf("the record went with the output: %v", err)
	}
	dirs, err := r.OutputDirs(Key{1, 1}, []string{"a"})
	must(t, err)
	if list, _ := os.ReadDir(dirs[0].Host); len(list) != 0 {
		t.Errorf("a second start finds %v", list)
	}
}

func TestMergedManifest(t *testing.T) {
	s := open(t, t.TempDir())
	defer s.Close()
	r := run(t, s)
	if _, err := r.OpenMerged(1); sheaf.ClassOf(err) != sheaf.NotFound {
		t.Errorf("before: %v", err)
	}
	for _, commit := range []bool{false, true} {
		w, err := r.CreateMerged(1)
		must(t, err)
		_, err = w.Write([]byte("lines\n"))
		must(t, err)
		if commit {
			must(t, w.Commit())
		}
		must(t, w.Close())
		f, err := r.OpenMerged(1)
		if commit != (err == nil) {
			t.Fatalf("commit %v: %v", commit, err)
		}
		if err == nil {
			var b bytes.Buffer
			b.ReadFrom(f)
			f.Close()
			if b.String() != "lines\n" {
				t.Errorf("read %q", b.String())
			}
		}
	}
}
