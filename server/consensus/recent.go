package consensus

import (
	"sync"

	"github.com/hashicorp/raft"
)

const (
	// recentEntries of the log are kept in memory at most, which is raft's own choice for the same end.
	recentEntries = 512
	// recentBytes is how much these may take, since one entry may have 64 KiB: some seconds of
	// a busy log. Raft's own cache has no such bound.
	recentBytes = 4 << 20
)

// recent keeps the newest entries in memory, for followers that are a little behind and for the
// state machine. Older ones are read from the store.
type recent struct {
	store raft.LogStore

	mu    sync.RWMutex
	logs  []*raft.Log // without gaps, the oldest first
	bytes int64
}

// GetLog gives an entry; one in memory is shared with whoever else asks.
func (r *recent) GetLog(index uint64, l *raft.Log) error {
	r.mu.RLock()
	var found *raft.Log
	if n := uint64(len(r.logs)); n > 0 && index >= r.logs[0].Index && index-r.logs[0].Index < n {
		found = r.logs[index-r.logs[0].Index]
	}
	r.mu.RUnlock()
	if found != nil {
		*l = *found
		return nil
	}
	return r.store.GetLog(index, l)
}

// StoreLog appends one entry.
func (r *recent) StoreLog(l *raft.Log) error { return r.StoreLogs([]*raft.Log{l}) }

// StoreLogs appends entries, and keeps them once they are stored.
func (r *recent) StoreLogs(logs []*raft.Log) error {
	if err := r.store.StoreLogs(logs); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range logs {
		if n := len(r.logs); n > 0 && l.Index != r.logs[n-1].Index+1 {
			r.drop(n) // behind a gap, as after a snapshot
		}
		r.logs = append(r.logs, l)
		r.bytes += entryBytes(l)
	}
	over := 0
	for bytes := r.bytes; len(r.logs)-over > recentEntries || bytes > recentBytes; over++ {
		bytes -= entryBytes(r.logs[over])
	}
	r.drop(over)
	return nil
}

// drop forgets the oldest n.
func (r *recent) drop(n int) {
	for i, l := range r.logs[:n] {
		r.bytes -= entryBytes(l)
		r.logs[i] = nil
	}
	r.logs = r.logs[n:]
}

// DeleteRange removes the entries first to last, and all from memory: those that replace them may be others.
func (r *recent) DeleteRange(first, last uint64) error {
	r.mu.Lock()
	r.drop(len(r.logs))
	r.mu.Unlock()
	return r.store.DeleteRange(first, last)
}

// FirstIndex is the index of the oldest entry, 0 when there is none.
func (r *recent) FirstIndex() (uint64, error) { return r.store.FirstIndex() }

// LastIndex is the index of the newest entry, 0 when there is none.
func (r *recent) LastIndex() (uint64, error) { return r.store.LastIndex() }
