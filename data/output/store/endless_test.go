package store

import (
	"bytes"
	"context"
	"os"
	"testing"
)

// TestOneEndlessLine prints a gigabyte without a line end: its head and its end are kept within the
// limit, on disk too, what was cut out is counted, and whoever asks for lines is not given more.
func TestOneEndlessLine(t *testing.T) {
	const limit, total = 256 << 10, 1 << 30
	dir, err := os.MkdirTemp("/dev/shm", "store-line")
	must(t, err)
	defer os.RemoveAll(dir)
	s := open(t, dir)
	r := run(t, s)
	key := Key{3, 1}
	l, err := r.Logs(key)
	must(t, err)
	chunk := bytes.Repeat([]byte("x"), 64<<10)
	must(t, l.Write(false, append([]byte("first"), chunk[5:]...)))
	for range total/len(chunk) - 2 {
		must(t, l.Write(false, chunk))
	}
	must(t, l.Write(false, append(bytes.Clone(chunk[4:]), "last"...)))

	check := func(when string) {
		t.Helper()
		info, err := os.Stat(r.logName(key, 0))
		must(t, err)
		if info.Size() > limit+ringSlack+ringHead {
			t.Errorf("%s the file has %d bytes, with a limit of %d", when, info.Size(), limit)
		}
		lr, err := r.OpenLog(context.Background(), 3, 1, false, false)
		must(t, err)
		defer lr.Close()
		off, data, dropped := keptOf(t, lr)
		all := bytes.Join(data, nil)
		if dropped != total-limit || len(all) != limit || !bytes.HasPrefix(all, []byte("firstx")) || !bytes.HasSuffix(all, []byte("xlast")) {
			t.Errorf("%s %d bytes are kept and %d dropped, from %.8q to %q", when, len(all), dropped, all, all[max(0, len(all)-8):])
		}
		cuts, at := 0, int64(0)
		for i := range off {
			if off[i] != at {
				cuts++
			}
			at = off[i] + int64(len(data[i]))
		}
		if cuts != 1 || at != total {
			t.Errorf("%s there are %d gaps up to %d", when, cuts, at)
		}
		lines, err := r.OpenLog(context.Background(), 3, 1, false, false)
		must(t, err)
		defer lines.Close()
		must(t, lines.SeekLines(1))
		if _, data, _ := keptOf(t, lines); !bytes.HasSuffix(bytes.Join(data, nil), []byte("xlast")) {
			t.Errorf("%s the last line does not end as the log does", when)
		}
	}
	check("while it runs")
	if tail := l.Tail(false, 100); len(tail) > 100 || !bytes.HasSuffix(tail, []byte("last")) {
		t.Errorf("the tail is %d bytes, %q", len(tail), tail)
	}
	must(t, r.Append(record(3, 1), l))
	must(t, s.Sync())
	check("in the end")
	rec, err := r.Record(3, 1)
	must(t, err)
	if rec.Stdout.Size != total || rec.Stdout.Dropped != total-limit {
		t.Errorf("the record says %+v", rec.Stdout)
	}
	must(t, s.Close())
}
