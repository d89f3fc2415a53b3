package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sheaf-run/agent/sheaf"
)

// small makes a store with two batches of three records each, one of them with a log of
// its own, and gives the run's directory.
func small(t *testing.T, clean bool) (dir string) {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "store-small")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := open(t, dir)
	r := run(t, s)
	for batch := range 2 {
		for p := range 3 {
			out := fmt.Sprintf("log of %d", p)
			if p == 2 {
				out = strings.Repeat("0123456789abcdef", InlineLog/16+4)
			}
			add(t, r, record(p, uint32(batch+1)), out, "")
		}
		must(t, s.Sync())
	}
	must(t, r.Ack([]Key{{0, 2}, {1, 1}}))
	if clean {
		must(t, s.Close())
	} else {
		crash(s)
	}
	return dir
}

func copyTree(t *testing.T, from string) string {
	t.Helper()
	to, err := os.MkdirTemp("/dev/shm", "store-copy")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(to) })
	must(t, os.CopyFS(to, os.DirFS(from)))
	return to
}

// intact counts the records that come back whole, and fails on one that comes back wrong.
func intact(t *testing.T, s *Store, what string) (n int) {
	t.Helper()
	r := run(t, s)
	for p := range 3 {
		for attempt := uint32(1); attempt <= 2; attempt++ {
			got, err := r.Record(p, attempt)
			if err != nil {
				var damage *Damage
				if !errors.As(err, &damage) && sheaf.ClassOf(err) != sheaf.NotFound {
					t.Fatalf("%s: record %d.%d: %v", what, p, attempt, err)
				}
				continue
			}
			if got.Message != record(p, attempt).Message || got.Digest != record(p, attempt).Digest || string(got.Manifest) != "not empty\n" {
				t.Fatalf("%s: record %d.%d came back as %+v", what, p, attempt, got)
			}
			lr, err := r.OpenLog(nil, p, attempt, false, false) //nolint:staticcheck // nothing waits without follow
			if err != nil {
				var damage *Damage
				if !errors.As(err, &damage) {
					t.Fatalf("%s: log %d.%d: %v", what, p, attempt, err)
				}
				continue
			}
			lr.Close()
			n++
		}
	}
	return n
}

func files(t *testing.T, dir string) (names []string) {
	t.Helper()
	must(t, filepath.WalkDir(filepath.Join(dir, "runs"), func(p string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			names = append(names, strings.TrimPrefix(p, dir+"/"))
		}
		return err
	}))
	return names
}

// TestEveryFlippedByteIsNamed flips each byte of each file of a store that was closed.
func TestEveryFlippedByteIsNamed(t *testing.T) {
	dir := small(t, true)
	for _, name := range files(t, dir) {
		orig, err := os.ReadFile(filepath.Join(dir, name))
		must(t, err)
		step := 1
		if strings.HasSuffix(name, ".out") {
			step = 97 // a checksum over all of it: any byte is like any other
		}
		if strings.HasSuffix(name, "/index") {
			orig = orig[:entryLen*4] // what follows is room that was reserved
		}
		for i := 0; i < len(orig); i += step {
			what := fmt.Sprintf("%s byte %d", name, i)
			fresh := copyTree(t, dir)
			path := filepath.Join(fresh, name)
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			must(t, err)
			_, err = f.WriteAt([]byte{orig[i] ^ 0x10}, int64(i))
			must(t, err)
			f.Close()
			s := open(t, fresh)
			n := intact(t, s, what)
			must(t, s.Unanswered(func(sheaf.RunID, Record) error { return nil }))
			named := false
			for _, d := range s.Damaged() {
				named = named || d.File == path
			}
			if !named {
				t.Errorf("%s: not named: %v", what, s.Damaged())
			}
			if min := 3; n < min && !strings.Contains(name, "seg-") || n < 0 {
				t.Errorf("%s: only %d records are left", what, n)
			}
			must(t, s.Close())
			os.RemoveAll(fresh)
		}
	}
}

// TestTornTail cuts the last segment at every byte after a crash.
func TestTornTail(t *testing.T) {
	dir := small(t, false)
	seg := filepath.Join("runs", "run-1", "seg-00000001")
	st, err := os.Stat(filepath.Join(dir, seg))
	must(t, err)
	before := 0
	for cut := int64(0); cut <= st.Size(); cut++ {
		fresh := copyTree(t, dir)
		must(t, os.Truncate(filepath.Join(fresh, seg), cut))
		// The index may have been lost with the tail, or not.
		if cut%2 == 0 {
			os.Remove(filepath.Join(fresh, "runs", "run-1", "index"))
		}
		s := open(t, fresh)
		n := intact(t, s, fmt.Sprintf("cut at %d", cut))
		if n < before {
			t.Fatalf("cut at %d leaves %d records, a byte less left %d", cut, n, before)
		}
		before = n
		if cut%2 == 0 && len(s.Damaged()) > 0 {
			t.Fatalf("cut at %d counts as damage: %v", cut, s.Damaged())
		}
		// It goes on working.
		add(t, run(t, s), record(0, 9), "", "")
		must(t, s.Sync())
		must(t, s.Close())
		s = open(t, fresh)
		if got, err := run(t, s).Record(0, 0); err != nil || got.Attempt != 9 {
			t.Fatalf("cut at %d: what came after is %+v (%v)", cut, got, err)
		}
		if again := intact(t, s, "reopened"); again != n {
			t.Fatalf("cut at %d: %d records, after a restart %d", cut, n, again)
		}
		must(t, s.Close())
		os.RemoveAll(fresh)
	}
	if before != 6 {
		t.Errorf("the whole file has %d records", before)
	}
}

// TestDamageBeforeTheTail: what comes before a later batch was synced, so that
// it cannot be torn: it is named, and what follows is kept.
func TestDamageBeforeTheTail(t *testing.T) {
	dir := small(t, false)
	path := filepath.Join(dir, "runs", "run-1", "seg-00000001")
	b, err := os.ReadFile(path)
	must(t, err)
	at := segmentHead + headLen + int(readHead(b[segmentHead:]).length) // the second record
	b[at+4] ^= 0xff                                                     // its length
	must(t, os.WriteFile(path, b, 0o600))
	s := open(t, dir)
	if n := intact(t, s, "damaged"); n != 5 {
		t.Errorf("%d records are left of 6", n)
	}
	d := s.Damaged()
	if len(d) == 0 || d[0].File != path || d[0].Offset != int64(at) {
		t.Errorf("damage: %v, want %s at %d", d, path, at)
	}
	must(t, s.Close())
}

func TestCutFilesAreNamed(t *testing.T) {
	dir := small(t, true)
	for _, name := range files(t, dir) {
		fresh := copyTree(t, dir)
		path := filepath.Join(fresh, name)
		st, err := os.Stat(path)
		must(t, err)
		must(t, os.Truncate(path, st.Size()/2))
		s := open(t, fresh)
		intact(t, s, name)
		named := false
		for _, d := range s.Damaged() {
			named = named || d.File == path
		}
		if !named {
			t.Errorf("%s: not named: %v", name, s.Damaged())
		}
		must(t, s.Close())
	}
}

func FuzzDecodePayload(f *testing.F) {
	rec := record(3, 2)
	b := appendRecord(nil, &rec, &logPart{size: 5, inline: []byte("hello")}, &logPart{size: 1 << 20, dropped: 1 << 10, head: 9, file: true, crc: 7})
	f.Add(b[headLen:])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := decodePayload(b)
		if err != nil {
			return
		}
		again := appendRecord(nil, &d.rec, &d.stdout, &d.stderr)
		e, err := decodePayload(again[headLen:])
		if err != nil {
			t.Fatalf("%x decoded, and does not after encoding: %v", b, err)
		}
		if fmt.Sprint(e) != fmt.Sprint(d) {
			t.Fatalf("%+v came back as %+v", d, e)
		}
	})
}

// FuzzOpenSegment opens runs with any bytes as their segment.
func FuzzOpenSegment(f *testing.F) {
	f.Add([]byte(segmentMagic), uint16(0))
	f.Add(make([]byte, 100), uint16(40))
	f.Fuzz(func(t *testing.T, junk []byte, at uint16) {
		dir, err := os.MkdirTemp("/dev/shm", "store-fuzz")
		must(t, err)
		defer os.RemoveAll(dir)
		s := open(t, dir)
		add(t, run(t, s), record(1, 1), "x", "")
		must(t, s.Sync())
		crash(s)
		name := filepath.Join(dir, "runs", "run-1", "seg-00000001")
		g, err := os.OpenFile(name, os.O_RDWR, 0)
		must(t, err)
		_, err = g.WriteAt(junk, int64(at))
		must(t, err)
		g.Close()
		os.Remove(filepath.Join(dir, "runs", "run-1", "index"))
		s = open(t, dir)
		r := run(t, s)
		if rec, err := r.Record(1, 1); err == nil && rec.Message != record(1, 1).Message {
			t.Fatalf("a wrong record: %+v", rec)
		}
		add(t, r, record(2, 1), "", "")
		must(t, s.Sync())
		if _, err := r.Record(2, 1); err != nil {
			t.Fatalf("the next record: %v", err)
		}
		must(t, s.Close())
	})
}
