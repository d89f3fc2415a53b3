package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"

	"github.com/sheaf-run/agent/internal/leaktest"
	"github.com/sheaf-run/agent/sheaf"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// TestAllAtOnce appends, syncs, answers, reads, follows and deletes from many goroutines.
func TestAllAtOnce(t *testing.T) {
	const writers, each = 6, 150
	dir := t.TempDir()
	s := open(t, dir)
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for w := range writers {
		wg.Go(func() {
			r, err := s.Run(sheaf.RunID(fmt.Sprintf("r%d", w%3)))
			if err != nil {
				t.Error(err)
				return
			}
			for i := range each {
				p := w/3*each + i
				add(t, r, record(p, 1), fmt.Sprintf("out %d", p), "")
				if i%10 == 9 {
					if err := s.Sync(); err != nil {
						t.Error(err)
					}
					if err := r.Ack([]Key{{p, 1}, {p - 1, 1}}); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	for range 2 {
		wg.Go(func() {
			r, _ := s.Run("r1")
			for {
				select {
				case <-stop:
					return
				default:
				}
				for rec, err := range r.Records([]Span{{0, 2 * each, 0}}) {
					if err != nil && sheaf.ClassOf(err) != sheaf.NotFound {
						t.Errorf("record %d: %v", rec.Partition, err)
					}
				}
				lr, err := r.OpenLog(context.Background(), 5, 0, false, true)
				if err != nil {
					continue
				}
				if p, err := lr.Next(); err == nil && string(p.Data) != "out 5" || err != nil && !errors.Is(err, io.EOF) {
					t.Errorf("log: %q %v", p.Data, err)
				}
				lr.Close()
			}
		})
	}
	wg.Go(func() {
		for i := range 20 {
			id := sheaf.RunID(fmt.Sprintf("gone%d", i))
			r, _ := s.Run(id)
			add(t, r, record(0, 1), "x", "")
			if i%2 == 0 {
				if err := s.Sync(); err != nil {
					t.Error(err)
				}
			}
			if err := s.DeleteRun(id); err != nil {
				t.Error(err)
			}
		}
	})
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	// Readers stop when the writers' last record is there.
	for {
		must(t, s.Sync())
		r, _ := s.Run("r2")
		if _, err := r.Record(2*each-1, 1); err == nil {
			break
		}
	}
	close(stop)
	<-done
	must(t, s.Sync())
	n := map[sheaf.RunID]int{}
	must(t, s.Unanswered(func(id sheaf.RunID, rec Record) error { n[id]++; return nil }))
	for i := range 3 {
		if got, want := n[sheaf.RunID(fmt.Sprintf("r%d", i))], 2*each*8/10; got != want {
			t.Errorf("run %d has %d unanswered, want %d", i, got, want)
		}
	}
	if len(n) != 3 {
		t.Errorf("runs: %v", n)
	}
	must(t, s.Close())
}
