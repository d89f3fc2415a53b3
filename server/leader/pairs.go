package leader

import (
	"time"

	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/server/straggler"
	"github.com/sheaf-run/agent/sheaf"
)

// maxReasons bounds the second attempts of a run of which it is remembered why they were made.
const maxReasons = 1024

// tail is what is remembered of a run for the sake of its slowest partitions.
type tail struct {
	took straggler.Sketch
	// order is what began, the oldest first; what is not in running any more is passed over. Those before head are gone.
	order []began
	head  int
	// pairs are the second attempts that are valid, as far as is known, by partition.
	pairs map[uint32]*pair
	// gaveUp is how many second attempts were given up for another, by partition that is not over.
	gaveUp map[uint32]int
	extra  time.Duration // in which both of a pair ran that is over
	made   int           // second attempts, in this term
	won    int           // of these
	why    map[uint32]string
}

type began struct {
	partition, attempt uint32
}

// pair is a second attempt; its since is zero until it is known to run.
type pair struct{ running }

// paired notes that a partition has a second attempt.
func (t *tracker) paired(run sheaf.RunID, b *state.Backup, node sheaf.NodeID, why string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.run(run)
	if r.tail.pairs == nil {
		r.tail.pairs, r.tail.why = map[uint32]*pair{}, map[uint32]string{}
	}
	r.tail.pairs[b.Partition] = &pair{running{attempt: b.Attempt, node: node}}
	if why != "" {
		r.tail.made++
		if len(r.tail.why) < maxReasons {
			r.tail.why[b.Partition] = why
		}
	}
}

// gaveUp notes that the second attempt at a partition was ended for another.
func (t *tracker) gaveUp(run sheaf.RunID, b *state.Backup, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.run(run)
	p := r.tail.pairs[b.Partition]
	if p == nil || p.attempt != b.Attempt {
		return
	}
	if first, ok := r.running[b.Partition]; ok && !p.since.IsZero() {
		r.tail.extra += now.Sub(later(first.since, p.since))
	}
	delete(r.tail.pairs, b.Partition)
	if r.tail.gaveUp == nil {
		r.tail.gaveUp = map[uint32]int{}
	}
	r.tail.gaveUp[b.Partition]++
}

// began notes that an attempt runs.
func (r *runTrack) began(partition uint32, x running) {
	if p := r.tail.pairs[partition]; p != nil && p.attempt == x.attempt {
		p.running = x
		return
	}
	if was, ok := r.running[partition]; ok && was.attempt == x.attempt {
		return // said again, on another stream
	}
	r.running[partition] = x
	t := &r.tail
	if len(t.order)-t.head > 2*len(r.running)+64 {
		t.compact(r.running)
	}
	t.order = append(t.order, began{partition, x.attempt})
}

// compact drops from the order what does not run any more.
func (t *tail) compact(running map[uint32]running) {
	keep := t.order[:0]
	for _, x := range t.order[t.head:] {
		if is, ok := running[x.partition]; ok && is.attempt == x.attempt {
			keep = append(keep, x)
		}
	}
	t.order, t.head = keep, 0
}

// over notes the answer to an attempt's result. A commit ends both of a pair.
func (r *runTrack) over(partition, attempt uint32, v wire.Verdict, now time.Time) {
	x, runs := r.running[partition]
	p := r.tail.pairs[partition]
	first, second := runs && x.attempt == attempt, p != nil && p.attempt == attempt
	if p != nil && (first || second) {
		if runs && !p.since.IsZero() {
			r.tail.extra += now.Sub(later(x.since, p.since))
		}
		if second && v == wire.Verdict_VERDICT_COMMITTED {
			r.tail.won++
		}
		delete(r.tail.pairs, partition)
		if first && v != wire.Verdict_VERDICT_COMMITTED && !p.since.IsZero() {
			delete(r.running, partition)
			r.began(partition, p.running) // it goes on alone
			return
		}
	}
	if first || second && v == wire.Verdict_VERDICT_COMMITTED {
		delete(r.running, partition)
		delete(r.tail.gaveUp, partition)
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// lost forgets the second attempts on a node.
func (t *tail) lost(node sheaf.NodeID) {
	for p, x := range t.pairs {
		if x.node == node {
			delete(t.pairs, p)
		}
	}
}

// slowness is how long a run's partitions take on each node beside what they take on all.
func (t *tracker) slowness(run sheaf.RunID) map[sheaf.NodeID]float64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.runs[run]
	if r == nil || r.tail.took.SumMs() == 0 {
		return nil
	}
	mean := r.tail.took.SumMs() / float64(r.tail.took.Len())
	slow := make(map[sheaf.NodeID]float64, len(r.nodes))
	for id, n := range r.nodes {
		if n.ended >= fewEnded {
			slow[id] = n.took / float64(n.ended) / mean
		}
	}
	return slow
}

// fewEnded ends on a node say nothing of how slow it is.
const fewEnded = 4

// longest are at most so many of those that run, the oldest first, with how many run in all. What the
// state does not hold valid any more is left out.
func (r *runTrack) longest(run *state.Run, most int, now time.Time) (list []straggler.Running) {
	t := &r.tail
	for i := t.head; i < len(t.order) && len(list) < most; i++ {
		x := t.order[i]
		is, ok := r.running[x.partition]
		if ok && is.attempt == x.attempt {
			row := run.Partitions.Row(int(x.partition))
			if row.State == sheaf.PartitionAssigned && (row.Attempt == x.attempt || t.pairs[x.partition] != nil) {
				list = append(list, straggler.Running{Partition: int(x.partition), Attempt: x.attempt, Node: is.node,
					Age: now.Sub(is.since) + reportedAge, Doubled: t.pairs[x.partition] != nil, Second: t.second(x.partition, now)})
				continue
			}
			delete(r.running, x.partition)
		}
		if i == t.head {
			t.head++
		}
	}
	return list
}

// second is what is known of the second attempt at a partition.
func (t *tail) second(partition uint32, now time.Time) straggler.Second {
	p := t.pairs[partition]
	if p == nil || p.since.IsZero() {
		return straggler.Second{}
	}
	return straggler.Second{Node: p.node, Age: now.Sub(p.since) + reportedAge, Tried: t.gaveUp[partition]}
}

// reportedAge is about how long an execution has run when its client reports that it does.
const reportedAge = 250 * time.Millisecond

// side is how long pairs have run side by side, those that still do included.
func (r *runTrack) side(now time.Time) time.Duration {
	sum := r.tail.extra
	for p, x := range r.tail.pairs {
		if first, ok := r.running[p]; ok && !x.since.IsZero() {
			sum += now.Sub(later(first.since, x.since))
		}
	}
	return sum
}
