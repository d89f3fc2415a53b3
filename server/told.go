package server

import (
	"sync"
	"time"

	"github.com/sheaf-run/agent/server/leader"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/sheaf"
)

const (
	// dear is how long finding out how a run goes takes before its answer is given again: with a thousand
	// nodes it takes milliseconds, and everybody who watches a run asks.
	dear = time.Millisecond
	// toldFor is for how many times as long as it took an answer is given again, longestTold for how long at most.
	toldFor     = 9
	longestTold = 250 * time.Millisecond
	// maxTold bounds the answers that are kept.
	maxTold = 1024
)

// told keeps answers on how runs go that took long to find.
type told struct {
	mu   sync.Mutex
	runs map[sheaf.RunID]answer
}

// answer is how a run went until a moment, if it still stands as it did.
type answer struct {
	Progress
	stands standing
	until  time.Time
}

// standing is what of a run changes what is said of it at once.
type standing struct {
	term       *leader.Term
	status     sheaf.RunStatus
	generation uint32
	priority   int
	held       bool
	waits      int
	backups    int
}

func standingOf(term *leader.Term, r *state.Run) standing {
	return standing{term, r.Status, r.Generation, r.Priority(), r.Held(), len(r.Waits), r.Backups}
}

// ask gives what was found of a run lately, or finds it.
func (t *told) ask(id sheaf.RunID, stands standing, find func() Progress) Progress {
	began := time.Now()
	t.mu.Lock()
	a, ok := t.runs[id]
	t.mu.Unlock()
	if ok && a.stands == stands && began.Before(a.until) {
		return a.Progress
	}
	p := find()
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	took := now.Sub(began)
	if took < dear {
		delete(t.runs, id)
		return p
	}
	if t.runs == nil || len(t.runs) >= maxTold {
		t.runs = map[sheaf.RunID]answer{}
	}
	t.runs[id] = answer{p, stands, now.Add(min(toldFor*took, longestTold))}
	return p
}
