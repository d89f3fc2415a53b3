// Package blame remembers how executions of all runs ended on each node, and says which nodes
// stand out by failures of their own doing. It is pure: what ended and when goes in, records come
// out; it has no clock and no concurrency. It counts in weights that fade by half in HalfLife, so that
// what is remembered is bounded, and a node that is mended is forgiven.
//
// A task that fails everywhere says nothing of a node. So a failure of the task's own (its exit code, its
// timeout, its limits) counts only once the same partition has succeeded on another node; and of those
// that are a node's rather than a task's (staging, the driver, outputs, preparing) one a run counts at once, and
// the others when anything of the run has succeeded on another node.
package blame

import (
	"math"
	"slices"
	"time"

	"github.com/sheaf-run/agent/sheaf"
)

const (
	// HalfLife is how long it takes until what happened counts half.
	HalfLife = 5 * time.Minute
	// maxWeight bounds what is remembered of a node: about so many of its newest ends count.
	maxWeight = 256
	// lossWeight is what the loss of a node, or of all that ran there, counts: one loss is a
	// restart, two within minutes are not.
	lossWeight = 2
	// faded is the weight below which nothing is known of a node.
	faded = 0.1
	// maxNodes bounds the nodes of which something is remembered.
	maxNodes = 16_384
	// maxWaiting bounds the failures, over all runs, that wait for their partition to
	// succeed elsewhere; further ones count against nobody.
	maxWaiting = 65_536
	// lookPause is how old an answer may be that is given again: with a thousand nodes finding it anew
	// takes a tenth of a millisecond.
	lookPause = 100 * time.Millisecond
)

// Ledger is what is remembered. Its zero value is not ready: use New. It is not safe for concurrent use.
type Ledger struct {
	nodes   map[sheaf.NodeID]*account
	runs    map[sheaf.RunID]*run
	waiting int // entries of all runs' failed

	counted uint64 // failures that were held against a node

	avoided map[sheaf.NodeID]Record // as found at looked
	looked  time.Time
}

// account is what is remembered of a node, in weights as of at.
type account struct {
	ended, failed float64
	at            time.Time
	last          sheaf.FailureKind // of the newest failure that counted
	lastAt        time.Time
	avoided       bool // it stood out when it was last looked at
}

// run is what is remembered of a live run.
type run struct {
	// good are the first two nodes on which anything of it succeeded.
	good [2]sheaf.NodeID
	// held are failures that count once it has succeeded elsewhere; a node that is here has had one counted.
	held map[sheaf.NodeID]held
	// failed are the nodes on which a partition failed in a way that may be the task's.
	failed map[uint32][]failure
}

type held struct {
	n    float64
	kind sheaf.FailureKind
}

type failure struct {
	node sheaf.NodeID
	kind sheaf.FailureKind
}

// nodesOwn are the kinds that are a node's doing rather than a task's, where the same run does well elsewhere.
var nodesOwn = map[sheaf.FailureKind]bool{
	sheaf.FailPrepare: true, sheaf.FailStage: true, sheaf.FailOutput: true, sheaf.FailDriver: true,
}

// New makes an empty ledger.
func New() *Ledger {
	return &Ledger{nodes: map[sheaf.NodeID]*account{}, runs: map[sheaf.RunID]*run{}}
}

func (l *Ledger) account(node sheaf.NodeID, now time.Time) *account {
	a := l.nodes[node]
	if a == nil {
		if len(l.nodes) >= maxNodes {
			l.prune(now)
		}
		a = &account{at: now}
		if len(l.nodes) < maxNodes {
			l.nodes[node] = a
		}
	}
	a.fade(now)
	return a
}

// prune forgets nodes of which nothing is known any more.
func (l *Ledger) prune(now time.Time) {
	for id, a := range l.nodes {
		if a.fade(now); a.ended < faded {
			delete(l.nodes, id)
		}
	}
}

func (a *account) fade(now time.Time) {
	if past := now.Sub(a.at); past > 0 {
		f := math.Exp2(-past.Seconds() / HalfLife.Seconds())
		a.ended, a.failed, a.at = a.ended*f, a.failed*f, now
	}
}

func (a *account) add(ended, failed float64) {
	a.ended += ended
	a.failed += failed
	if a.ended > maxWeight {
		f := maxWeight / a.ended
		a.ended, a.failed = maxWeight, a.failed*f
	}
}

// count holds failures against a node.
func (l *Ledger) count(node sheaf.NodeID, n float64, kind sheaf.FailureKind, now time.Time) {
	a := l.account(node, now)
	a.add(n, n)
	a.last, a.lastAt = kind, now
	l.counted++
	l.looked = time.Time{}
}

func (l *Ledger) run(id sheaf.RunID) *run {
	r := l.runs[id]
	if r == nil {
		r = &run{}
		l.runs[id] = r
	}
	return r
}

// elsewhere reports whether anything of the run has succeeded on another node.
func (r *run) elsewhere(node sheaf.NodeID) bool {
	return r.good[0] != "" && r.good[0] != node || r.good[1] != ""
}

// Succeeded notes that n executions of a run were committed on a node.
func (l *Ledger) Succeeded(id sheaf.RunID, node sheaf.NodeID, n int, now time.Time) {
	if n <= 0 {
		return
	}
	l.account(node, now).add(float64(n), 0)
	r := l.run(id)
	switch {
	case r.good[1] != "" || r.good[0] == node:
		return
	case r.good[0] == "":
		r.good[0] = node
	default:
		r.good[1] = node
	}
	for other, h := range r.held {
		if r.elsewhere(other) && h.n > 0 {
			l.count(other, h.n, h.kind, now)
			r.held[other] = held{}
		}
	}
}

// Waits reports whether failures of a run wait for their partitions to succeed elsewhere: where none
// does, SucceededAt need not be called.
func (l *Ledger) Waits(id sheaf.RunID) bool {
	r := l.runs[id]
	return r != nil && len(r.failed) > 0
}

// SucceededAt notes that a partition was committed on a node: that it failed on others was their doing.
func (l *Ledger) SucceededAt(id sheaf.RunID, partition uint32, node sheaf.NodeID, now time.Time) {
	r := l.runs[id]
	if r == nil {
		return
	}
	list, ok := r.failed[partition]
	if !ok {
		return
	}
	delete(r.failed, partition)
	l.waiting -= len(list)
	for _, f := range list {
		if f.node != node {
			l.count(f.node, 1, f.kind, now)
		}
	}
}

// Failed notes that an execution of a partition failed on a node.
func (l *Ledger) Failed(id sheaf.RunID, partition uint32, node sheaf.NodeID, kind sheaf.FailureKind, now time.Time) {
	if nodesOwn[kind] {
		l.failedThere(id, node, kind, now)
		return
	}
	if a := l.nodes[node]; a != nil && a.avoided { // it has not shown that it does better, whoever is to blame
		a.lastAt = now
		l.looked = time.Time{}
	}
	if l.waiting >= maxWaiting {
		return
	}
	r := l.run(id)
	if r.failed == nil {
		r.failed = map[uint32][]failure{}
	}
	r.failed[partition] = append(r.failed[partition], failure{node, kind})
	l.waiting++
}

// Unprepared notes that a run could not be made ready on a node.
func (l *Ledger) Unprepared(id sheaf.RunID, node sheaf.NodeID, now time.Time) {
	l.failedThere(id, node, sheaf.FailPrepare, now)
}

func (l *Ledger) failedThere(id sheaf.RunID, node sheaf.NodeID, kind sheaf.FailureKind, now time.Time) {
	r := l.run(id)
	h, before := r.held[node]
	if r.held == nil {
		r.held = map[sheaf.NodeID]held{}
	}
	if !before || r.elsewhere(node) {
		r.held[node] = h
		l.count(node, 1, kind, now)
		return
	}
	r.held[node] = held{min(h.n+1, maxWeight), kind}
}

// Lost notes that a node was lost, or came back without what it ran.
func (l *Ledger) Lost(node sheaf.NodeID, now time.Time) {
	l.count(node, lossWeight, sheaf.FailLosses, now)
}

// Forget drops what waits of a run that is over.
func (l *Ledger) Forget(id sheaf.RunID) {
	if r := l.runs[id]; r != nil {
		for _, list := range r.failed {
			l.waiting -= len(list)
		}
		delete(l.runs, id)
	}
}

// Counted rises whenever failures are held against a node.
func (l *Ledger) Counted() uint64 { return l.counted }

// Avoided are the nodes that stand out. The map is not to be changed.
func (l *Ledger) Avoided(now time.Time) map[sheaf.NodeID]Record {
	if !l.looked.IsZero() && now.Sub(l.looked) < lookPause {
		return l.avoided
	}
	l.looked, l.avoided = now, nil
	suspect := false
	for _, a := range l.nodes {
		a.fade(now)
		suspect = suspect || a.avoided || a.failed > least
	}
	if !suspect {
		return nil
	}
	usual := l.usual()
	l.avoided = map[sheaf.NodeID]Record{}
	for id, a := range l.nodes {
		if r, out := a.record(usual); out {
			a.avoided = true
			l.avoided[id] = r
		} else {
			a.avoided = false
		}
	}
	return l.avoided
}

// usual is how the better half of the nodes does, so that at most half can stand out, and not one
// that is alone.
func (l *Ledger) usual() ordinary {
	known := make([]*account, 0, len(l.nodes))
	for _, a := range l.nodes {
		if a.ended >= faded {
			known = append(known, a)
		}
	}
	slices.SortFunc(known, func(a, b *account) int {
		switch x, y := a.failed*b.ended, b.failed*a.ended; {
		case x < y:
			return -1
		case x > y:
			return 1
		}
		return 0
	})
	var ended, failed float64
	for _, a := range known[:(len(known)+1)/2] {
		ended += a.ended
		failed += a.failed
	}
	return ordinary{share: failed / max(ended, faded), expected: (failed + 0.5) / (ended + 5)}
}
