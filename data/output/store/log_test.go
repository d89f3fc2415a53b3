package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"testing/synctest"

	"pgregory.net/rapid"

	"github.com/sheaf-run/agent/sheaf"
)

// stream is n bytes that tell where they stand.
func stream(from, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte((from + i) * 31 >> 3)
		if (from+i)%61 == 60 {
			b[i] = '\n'
		}
	}
	return b
}

// kept reads a log whole: its pieces by offset.
func keptOf(t fataler, r *LogReader) (off []int64, data [][]byte, dropped int64) {
	t.Helper()
	for {
		p, err := r.Next()
		if errors.Is(err, io.EOF) {
			return off, data, dropped
		}
		must(t, err)
		dropped += p.Dropped
		off = append(off, p.Offset)
		data = append(data, bytes.Clone(p.Data))
	}
}

// TestLogModel writes logs of any length in any pieces, with restarts, and compares
// what is read with what was written.
func TestLogModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp("/dev/shm", "store-log")
		must(t, err)
		defer os.RemoveAll(dir)
		limit := int64(rapid.SampledFrom([]int{1 << 10, 40 << 10, 200 << 10}).Draw(t, "limit"))
		reopen := func() (*Store, *Run, *Logs) {
			s, err := Open(dir, Options{LogLimit: limit})
			must(t, err)
			r := run(t, s)
			l, err := r.Logs(Key{1, 1})
			must(t, err)
			return s, r, l
		}
		s, r, l := reopen()
		written := 0
		check := func(lr *LogReader) {
			t.Helper()
			defer lr.Close()
			off, data, dropped := keptOf(t, lr)
			at, have := int64(0), int64(0)
			for i := range off {
				if !bytes.Equal(data[i], stream(int(off[i]), len(data[i]))) {
					t.Fatalf("wrong bytes at %d", off[i])
				}
				if off[i] < at {
					t.Fatalf("a piece at %d after %d", off[i], at)
				}
				at = off[i] + int64(len(data[i]))
				have += int64(len(data[i]))
			}
			if at != int64(written) || have+dropped != at {
				t.Fatalf("read to %d of %d, %d bytes and %d dropped", at, written, have, dropped)
			}
			if want := min(int64(written), limit); have < want || have > max(want, InlineLog) {
				t.Fatalf("%d bytes are kept of %d with a limit of %d", have, written, limit)
			}
		}
		for range rapid.IntRange(0, 12).Draw(t, "writes") {
			n := rapid.SampledFrom([]int{1, 100, 8 << 10, InlineLog, InlineLog + 1, 64 << 10}).Draw(t, "n")
			must(t, l.Write(true, stream(written, n)))
			written += n
			switch rapid.IntRange(0, 5).Draw(t, "then") {
			case 0:
				must(t, l.Sync())
				crash(s)
				s, r, l = reopen()
			case 1:
				lr, err := r.OpenLog(context.Background(), 1, 0, true, false)
				must(t, err)
				check(lr)
			}
			if tail := l.Tail(true, 100); !bytes.HasSuffix(stream(0, written), tail) || written > 100 && len(tail) < 30 {
				t.Fatalf("the tail is %q", tail)
			}
		}
		must(t, r.Append(record(1, 1), l))
		must(t, s.Sync())
		for range 2 {
			lr, err := r.OpenLog(context.Background(), 1, 1, true, false)
			must(t, err)
			check(lr)
			if rec, err := r.Record(1, 1); err != nil || rec.Stderr.Size != int64(written) || rec.Stdout.Size != 0 {
				t.Fatalf("record %+v (%v)", rec, err)
			}
			// Any place to begin, and any number of lines.
			lr, err = r.OpenLog(context.Background(), 1, 1, true, false)
			must(t, err)
			from := int64(rapid.IntRange(0, written+1).Draw(t, "from"))
			lr.SeekTo(from)
			if p, err := lr.Next(); err == nil && (p.Offset < from || p.Dropped != p.Offset-from || !bytes.Equal(p.Data, stream(int(p.Offset), len(p.Data)))) {
				t.Fatalf("from %d: a piece at %d, dropped %d", from, p.Offset, p.Dropped)
			}
			lines := rapid.IntRange(1, 20).Draw(t, "lines")
			must(t, lr.SeekLines(lines))
			_, data, dropped := keptOf(t, lr)
			got := bytes.Join(data, nil)
			if all := bytes.SplitAfter(stream(0, written), []byte{'\n'}); written > 0 && int64(written) <= min(limit, InlineLog) {
				if len(all[len(all)-1]) == 0 {
					all = all[:len(all)-1]
				}
				want := bytes.Join(all[max(0, len(all)-lines):], nil)
				if dropped != 0 || !bytes.Equal(got, want) {
					t.Fatalf("the last %d lines are %d bytes, want %d", lines, len(got), len(want))
				}
			}
			lr.Close()
			must(t, s.Close())
			s, err = Open(dir, Options{LogLimit: limit})
			must(t, err)
			r = run(t, s)
		}
		must(t, s.Close())
	})
}

func TestNothingOnDiskForShortLogs(t *testing.T) {
	s := open(t, t.TempDir())
	defer s.Close()
	r := run(t, s)
	l, err := r.Logs(Key{0, 1})
	must(t, err)
	must(t, l.Write(false, stream(0, InlineLog)))
	if _, err := os.Stat(r.dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the run is on disk: %v", err)
	}
	if again, _ := r.Logs(Key{0, 1}); again != l {
		t.Error("a second writer")
	}
	must(t, l.Sync())
	if _, err := os.Stat(r.logName(Key{0, 1}, 0)); err != nil {
		t.Errorf("synced, and not there: %v", err)
	}
	must(t, r.Append(record(0, 1), l))
	must(t, s.Sync())
	if _, err := os.Stat(r.logName(Key{0, 1}, 0)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a short log still has a file: %v", err)
	}
	if got := readLog(t, r, 0, 1, false); got != string(stream(0, InlineLog)) {
		t.Errorf("read %d bytes", len(got))
	}
	if err := l.Write(false, []byte("late")); err == nil {
		t.Error("written after its end")
	}
	l, err = r.Logs(Key{1, 1})
	must(t, err)
	must(t, l.Write(true, stream(0, InlineLog+1)))
	l.Discard()
	if _, err := os.Stat(r.logName(Key{1, 1}, 1)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("discarded, and there: %v", err)
	}
}

func TestFollowing(t *testing.T) {
	s := open(t, t.TempDir())
	r := run(t, s)
	synctest.Test(t, func(t *testing.T) {
		l, err := r.Logs(Key{4, 2})
		must(t, err)
		lr, err := r.OpenLog(context.Background(), 4, 0, false, true)
		must(t, err)
		var got bytes.Buffer
		done := make(chan error, 1)
		go func() {
			for {
				p, err := lr.Next()
				if err != nil {
					done <- err
					return
				}
				got.Write(p.Data)
			}
		}()
		want := ""
		for i := range 200 {
			line := fmt.Sprintf("line %d %s\n", i, strings.Repeat("x", i))
			must(t, l.Write(false, []byte(line)))
			want += line
			synctest.Wait()
			if got.String() != want {
				t.Fatalf("after line %d the follower has %d bytes of %d", i, got.Len(), len(want))
			}
		}
		must(t, r.Append(record(4, 2), l))
		if err := <-done; !errors.Is(err, io.EOF) {
			t.Errorf("the end: %v", err)
		}
		must(t, lr.Close())

		l, err = r.Logs(Key{5, 1})
		must(t, err)
		ctx, cancel := context.WithCancel(context.Background())
		lr, err = r.OpenLog(ctx, 5, 1, false, true)
		must(t, err)
		go func() {
			_, err := lr.Next()
			done <- err
		}()
		synctest.Wait()
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v", err)
		}
		must(t, lr.Close())
		l.Discard()
	})
	if _, err := r.OpenLog(context.Background(), 77, 0, false, true); sheaf.ClassOf(err) != sheaf.NotFound {
		t.Errorf("nothing there: %v", err)
	}
	must(t, s.Close())
}

// TestReaderOutlivesTheRecord reads on while the log is ended and its file is taken away.
func TestReaderOutlivesTheRecord(t *testing.T) {
	s := open(t, t.TempDir())
	defer s.Close()
	r := run(t, s)
	l, err := r.Logs(Key{0, 1})
	must(t, err)
	must(t, l.Write(false, []byte("short")))
	must(t, l.Sync())
	lr, err := r.OpenLog(context.Background(), 0, 1, false, true)
	must(t, err)
	must(t, r.Append(record(0, 1), l))
	must(t, s.Sync())
	_, data, _ := keptOf(t, lr)
	if string(bytes.Join(data, nil)) != "short" {
		t.Errorf("read %q", data)
	}
	must(t, lr.Close())
	if l.rings[0].f != nil {
		t.Error("the file is still open")
	}
}
