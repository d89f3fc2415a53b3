package consensus

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/hashicorp/raft"
	"pgregory.net/rapid"
)

// TestRecentIsTheLog: whatever is appended, taken back and skipped, an entry is what the store has, and what is
// kept in memory stays within its bounds.
func TestRecentIsTheLog(t *testing.T) {
	data := bytes.Repeat([]byte("x"), 2<<20)
	rapid.Check(t, func(t *rapid.T) {
		store := raft.NewInmemStore()
		r := &recent{store: store}
		last, term := uint64(0), uint64(1)
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			switch rapid.SampledFrom([]string{"append", "append", "append", "replace", "compact", "restore"}).Draw(t, "step") {
			case "append":
				var logs []*raft.Log
				size := rapid.SampledFrom([]int{0, 10, 60 << 10, len(data)}).Draw(t, "size")
				for range rapid.IntRange(1, 300).Draw(t, "entries") {
					last++
					logs = append(logs, &raft.Log{Index: last, Term: term, Data: data[:size]})
				}
				if err := r.StoreLogs(logs); err != nil {
					t.Fatal(err)
				}
			case "replace": // a follower whose newest entries no majority has
				if last > 0 {
					from := uint64(rapid.IntRange(1, int(last)).Draw(t, "from"))
					if err := r.DeleteRange(from, last); err != nil {
						t.Fatal(err)
					}
					last, term = from-1, term+1
				}
			case "compact":
				if first, _ := store.FirstIndex(); first > 0 && first < last {
					if err := r.DeleteRange(first, uint64(rapid.IntRange(int(first), int(last)-1).Draw(t, "to"))); err != nil {
						t.Fatal(err)
					}
				}
			case "restore": // the entries behind a snapshot of another server's
				last += uint64(rapid.IntRange(1, 1000).Draw(t, "skipped"))
			}
			var bytes int64
			for _, l := range r.logs {
				bytes += entryBytes(l)
			}
			if len(r.logs) > recentEntries || bytes > recentBytes || bytes != r.bytes {
				t.Fatalf("%d entries of %d bytes are kept, counted as %d; want at most %d of %d", len(r.logs), bytes, r.bytes, recentEntries, recentBytes)
			}
		}
		for i := uint64(0); i <= last+1; i++ {
			var got, want raft.Log
			errGot, errWant := r.GetLog(i, &got), store.GetLog(i, &want)
			if fmt.Sprint(errGot) != fmt.Sprint(errWant) || got.Index != want.Index || got.Term != want.Term || len(got.Data) != len(want.Data) {
				t.Fatalf("entry %d of term %d, %v; want term %d, %v", i, got.Term, errGot, want.Term, errWant)
			}
		}
	})
}

// TestRecentIsInMemory: what a follower that is a little behind asks for is not read from the store.
func TestRecentIsInMemory(t *testing.T) {
	store := raft.NewInmemStore()
	r := &recent{store: store}
	for i := range uint64(1000) {
		if err := r.StoreLog(&raft.Log{Index: i + 1, Data: []byte("x")}); err != nil {
			t.Fatal(err)
		}
	}
	if err := store.DeleteRange(1, 1000); err != nil {
		t.Fatal(err)
	}
	var l raft.Log
	if err := r.GetLog(1000-recentEntries+1, &l); err != nil {
		t.Errorf("the oldest that is kept: %v", err)
	}
	if err := r.GetLog(1000-recentEntries, &l); err == nil {
		t.Error("an older one is kept as well")
	}
}
