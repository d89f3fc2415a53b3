package shard

import (
	"errors"
	"runtime"
	"strconv"
	"testing"

	"github.com/sheaf-run/agent/sheaf"
)

// files gives n files named by their number to yield, in batches that it uses again.
func files(n int, yield func([]sheaf.Entry) error) error {
	batch := make([]sheaf.Entry, 0, 4096)
	name := []byte("/in/")
	for i := range n {
		name = strconv.AppendInt(name[:4], int64(100_000_000+i), 10)
		batch = append(batch, sheaf.Entry{Path: string(name), Kind: sheaf.EntryFile, Size: 1})
		if len(batch) == cap(batch) || i == n-1 {
			if err := yield(batch); err != nil {
				return err
			}
			batch = batch[:0]
		}
	}
	return nil
}

// TestTenMillionFiles gives ** one file more than there may be partitions: one
// each is refused at the limit, in batches they are split, and neither keeps what has gone by.
func TestTenMillionFiles(t *testing.T) {
	const n = sheaf.MaxPartitions + 1
	for _, c := range []struct{ batch, partitions int }{{1, sheaf.MaxPartitions}, {1000, n/1000 + 1}} {
		r, err := Compile(&sheaf.Job{Inputs: oneInput, Split: &sheaf.Split{Glob: "/**", BatchSize: c.batch}})
		if err != nil {
			t.Fatal(err)
		}
		heap := func() int64 {
			var m runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&m)
			return int64(m.HeapAlloc)
		}
		var before, after int64
		made := 0
		s := NewSplitter(r, func(*View) error {
			switch made++; made {
			case c.partitions / 10:
				before = heap()
			case c.partitions - 1:
				after = heap()
			}
			return nil
		})
		err = files(n, s.Add)
		if err == nil {
			_, err = s.Finish()
		}
		if made != c.partitions {
			t.Errorf("batches of %d: %d partitions, want %d", c.batch, made, c.partitions)
		}
		if after > before+4<<20 {
			t.Errorf("batches of %d: %d KiB after a tenth, %d KiB at the end", c.batch, before>>10, after>>10)
		}
		var e *sheaf.Error
		if c.batch > 1 {
			if err != nil {
				t.Error(err)
			}
		} else if !errors.As(err, &e) || e.Class != sheaf.Invalid || e.Limit != "10000000 partitions" || e.Field == "" || e.Hint == "" {
			t.Errorf("one file each: %#v", err)
		}
	}
}
