package state

import (
	"fmt"
	"testing"

	"github.com/sheaf-run/agent/sheaf"
)

func isClosed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

// TestWatchersSleepThroughOthersChanges: of 10,000 who wait for a run, a namespace or the nodes, none wakes
// while another run of another namespace changes a hundred times, and all when theirs does.
func TestWatchersSleepThroughOthersChanges(t *testing.T) {
	s := New(new(MemoryChunks))
	index := uint64(0)
	change := func(do func(*Txn)) {
		index++
		x := s.Begin(index, 0)
		do(x)
		x.Commit()
	}
	insert := func(id sheaf.RunID, namespace string) {
		change(func(x *Txn) {
			x.InsertRun(&Run{ID: id, Job: &sheaf.Job{Name: "job", Namespace: namespace}, Status: sheaf.RunRunning})
		})
	}
	for i := range 100 { // siblings in the trees
		insert(sheaf.RunID(fmt.Sprintf("mine-%d", i)), fmt.Sprintf("ns-%d", i))
	}
	insert("mine", "mine")
	insert("other", "other")
	change(func(x *Txn) { x.PutNode(&Node{Node: sheaf.Node{ID: "n"}}) })

	var runs, namespaces, nodes []<-chan struct{}
	for range 10_000 {
		_, run := s.Snapshot().WatchRun("mine")
		_, namespace := s.Snapshot().WatchRunsOf("mine")
		_, node := s.Snapshot().WatchNodeTable()
		runs, namespaces, nodes = append(runs, run), append(namespaces, namespace), append(nodes, node)
	}
	before, _ := s.Snapshot().WatchRunsOf("mine")
	woken := func(all []<-chan struct{}) (n int) {
		for _, ch := range all {
			if isClosed(ch) {
				n++
			}
		}
		return n
	}
	for range 100 {
		change(func(x *Txn) { x.Run("other").Change().Error = fmt.Sprint(index) })
	}
	if a, b, c := woken(runs), woken(namespaces), woken(nodes); a+b+c != 0 {
		t.Errorf("woken for nothing: %d who wait for a run, %d for a namespace, %d for the nodes", a, b, c)
	}
	if after, _ := s.Snapshot().WatchRunsOf("mine"); after != before {
		t.Errorf("the namespace's index moved from %d to %d without news", before, after)
	}
	if all, _ := s.Snapshot().WatchRunsOf(AllNamespaces); all != index {
		t.Errorf("the last change of any run is at %d, not %d", all, index)
	}
	change(func(x *Txn) { x.Run("mine").Change().Error = "x" })
	if a, b, c := woken(runs), woken(namespaces), woken(nodes); a != len(runs) || b != len(namespaces) || c != 0 {
		t.Errorf("woken by their own change: %d, %d and %d of %d", a, b, c, len(runs))
	}
	_, gone := s.Snapshot().WatchRunsOf("mine")
	change(func(x *Txn) { x.DeleteRun(x.Run("mine"), &Tombstone{Run: "mine"}) })
	if after, _ := s.Snapshot().WatchRunsOf("mine"); !isClosed(gone) || after != index {
		t.Errorf("a run that went: %v, index %d of %d", isClosed(gone), after, index)
	}
}

// TestTouchedBeginsWithTheSnapshot: after a restore the index of what was not touched since is the snapshot's.
func TestTouchedBeginsWithTheSnapshot(t *testing.T) {
	s := New(new(MemoryChunks))
	if index, _ := s.Snapshot().WatchRunsOf("x"); index == 0 {
		t.Error("an index of 0 would not let a reader wait")
	}
	s.reset(newDB(), meta{Index: 77})
	if index, _ := s.Snapshot().WatchRunsOf("x"); index != 77 {
		t.Errorf("the index is %d", index)
	}
}
