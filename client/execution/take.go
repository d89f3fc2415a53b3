package execution

import (
	"time"

	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/sheaf"
)

// Kill ends what the servers hold no longer valid: what is queued is dropped,
// what runs is ended, what is not durable yet is never sent. A result that may have been sent
// waits for its answer all the same: it may stand committed, which is no longer
// valid to execute either, and its answer be on the way behind the kill.
func (c *Core) Kill(x *wire.Executions, now time.Time) {
	r := c.runs[RunKey(sheaf.RunID(x.GetRun()), x.GetKind())]
	if r == nil || !aligned(x) {
		return
	}
	for i := range x.First {
		s := span{first: x.First[i], count: x.Count[i], attempt: x.Attempt[i]}
		if isOwn(x.Kind) {
			k := ownKey{x.Kind, s.attempt}
			if e := r.own[k]; e != nil {
				c.endOwn(r, k, e)
			}
			continue
		}
		r.queue.remove(s)
		r.window = dropFrom(r.window, s)
		for _, e := range matching(r.live, s) {
			c.stop(e, StopKilled, now)
		}
	}
	c.settleActive()
	c.forget(r)
}

// matching lists what m holds of s, by whichever way looks at less.
func matching[T any](m map[uint64]*T, s span) []*T {
	var found []*T
	if int64(s.count) <= int64(len(m)) {
		for i := range s.count {
			if v := m[key(s.first+i, s.attempt)]; v != nil {
				found = append(found, v)
			}
		}
		return found
	}
	for k, v := range m {
		if p := uint32(k >> 32); uint32(k) == s.attempt && p >= s.first && p-s.first < s.count {
			found = append(found, v)
		}
	}
	return found
}

func dropFrom(w []candidate, s span) []candidate {
	keep := w[:0]
	for _, x := range w {
		if x.attempt == s.attempt && x.partition >= s.first && x.partition < s.end() {
			continue
		}
		keep = append(keep, x)
	}
	clear(w[len(keep):])
	return keep
}

// TakeBack drops up to most partitions that have not begun, the last assigned
// first, and says which. From then on they cannot begin here.
func (c *Core) TakeBack(run sheaf.RunID, generation, most uint32) *wire.Executions {
	out := &wire.Executions{Run: string(run), Generation: generation}
	r := c.runs[run]
	if r == nil {
		return out
	}
	for most > 0 {
		s := r.queue.unpush(most)
		if s.count == 0 {
			break
		}
		most -= s.count
		appendSpan(out, s)
	}
	for most > 0 && len(r.window) > 0 {
		n := len(r.window) - 1
		w := r.window[n]
		r.window[n] = candidate{}
		r.window = r.window[:n]
		most--
		appendSpan(out, span{first: w.partition, count: 1, attempt: w.attempt})
	}
	c.settleActive()
	return out
}

// appendSpan adds s to the columns, joined to the last range where one goes on
// in or ends before the other.
func appendSpan(x *wire.Executions, s span) {
	if n := len(x.First) - 1; n >= 0 && x.Attempt[n] == s.attempt {
		switch {
		case x.First[n]+x.Count[n] == s.first:
			x.Count[n] += s.count
			return
		case s.end() == x.First[n]:
			x.First[n] = s.first
			x.Count[n] += s.count
			return
		}
	}
	x.First = append(x.First, s.first)
	x.Count = append(x.Count, s.count)
	x.Attempt = append(x.Attempt, s.attempt)
}
