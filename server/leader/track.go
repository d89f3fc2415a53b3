package leader

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/server/blame"
	"github.com/sheaf-run/agent/sheaf"
)

const (
	// maxRunning bounds the running partitions remembered of a run. A cluster
	// of a thousand nodes with a hundred slots each stays below.
	maxRunning = 131_072
	// forgetAfter so many ends on a node, its record of failures fades by half.
	forgetAfter = 64
	// slowest is how many of the longest running partitions are named.
	slowest = 3
)

// tracker holds what clients report and nobody commits: what runs, how fast, and how it
// goes on each node. It starts empty with a term and fills within seconds.
type tracker struct {
	mu   sync.Mutex
	runs map[sheaf.RunID]*runTrack
	// refuses says why a node takes no work at present.
	refuses map[sheaf.NodeID]string
	// held is what a node has fetched and keeps: bytes by origin.
	held map[sheaf.NodeID]map[string]int64
	// committed and failed count the results answered in this term.
	committed, failed uint64
	blame             *blame.Ledger
}

type runTrack struct {
	rate    window
	nodes   map[sheaf.NodeID]*nodeTrack
	running map[uint32]running // by partition, at most maxRunning; second attempts are in pairs
	tail    tail
}

// nodeTrack is how one run goes on one node.
type nodeTrack struct {
	rate      window
	reported  float64 // the client's own measure
	slots     int     // as the client measured; 0 is not known
	succeeded int     // lately
	failed    int
	took      float64 // ms of all that were committed, ended of them
	ended     int
}

type running struct {
	attempt uint32
	node    sheaf.NodeID
	since   time.Time
}

func newTracker() *tracker {
	return &tracker{runs: map[sheaf.RunID]*runTrack{}, refuses: map[sheaf.NodeID]string{}, held: map[sheaf.NodeID]map[string]int64{}, blame: blame.New()}
}

func (t *tracker) run(id sheaf.RunID) *runTrack {
	r := t.runs[id]
	if r == nil {
		r = &runTrack{nodes: map[sheaf.NodeID]*nodeTrack{}, running: map[uint32]running{}}
		t.runs[id] = r
	}
	return r
}

func (r *runTrack) node(id sheaf.NodeID) *nodeTrack {
	n := r.nodes[id]
	if n == nil {
		n = &nodeTrack{}
		r.nodes[id] = n
	}
	return n
}

// started notes that executions have begun.
func (t *tracker) started(node sheaf.NodeID, e *wire.Executions, now time.Time) {
	if e == nil || e.Kind != wire.Kind_KIND_PARTITION || len(e.First) != len(e.Count) || len(e.First) != len(e.Attempt) {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.run(sheaf.RunID(e.Run))
	for i, first := range e.First {
		for p := range min(e.Count[i], maxRunning) {
			if len(r.running) >= maxRunning {
				return
			}
			r.began(first+p, running{e.Attempt[i], node, now})
		}
	}
}

// ended notes results that have been answered. It reports whether a failure may now be held against a node.
func (t *tracker) ended(res *wire.Results, a *wire.Answers, now time.Time) bool {
	if res.Kind != wire.Kind_KIND_PARTITION {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.run(sheaf.RunID(res.Run))
	n := r.node(sheaf.NodeID(res.Node))
	committed, failed := 0, 0
	for i, v := range a.Verdict {
		r.over(res.Partition[i], res.Attempt[i], wire.Verdict(v), now)
		switch wire.Verdict(v) {
		case wire.Verdict_VERDICT_COMMITTED:
			committed++
			if len(res.DurationMs) > i {
				r.tail.took.Add(0, res.DurationMs[i])
				n.took += float64(res.DurationMs[i])
				n.ended++
			}
		case wire.Verdict_VERDICT_RECORDED:
			failed++
		}
	}
	counted := t.blamed(res, a, committed, now)
	t.committed += uint64(committed)
	t.failed += uint64(failed)
	r.rate.add(now, committed+failed)
	n.rate.add(now, committed+failed)
	n.succeeded += committed
	n.failed += failed
	for n.succeeded+n.failed > forgetAfter {
		n.succeeded /= 2
		n.failed /= 2
	}
	return counted
}

// pulse notes a client's own measures. It reports whether the node now takes
// work after it did not, or the other way, and for which runs it has become larger.
func (t *tracker) pulse(node sheaf.NodeID, p *wire.Pulse) (anew bool, larger []sheaf.RunID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	anew = t.refuses[node] != p.Error
	if p.Error == "" {
		delete(t.refuses, node)
	} else {
		t.refuses[node] = p.Error
	}
	delete(t.held, node)
	if len(p.Held) > 0 {
		held := make(map[string]int64, len(p.Held))
		for _, x := range p.Held {
			held[x.Origin] = x.Bytes
		}
		t.held[node] = held
	}
	for _, x := range p.Runs {
		n := t.run(sheaf.RunID(x.Run)).node(node)
		if int(x.Slots) > n.slots || x.Rate > n.reported*1.25 {
			larger = append(larger, sheaf.RunID(x.Run))
		}
		n.slots, n.reported = int(x.Slots), x.Rate
	}
	return anew, larger
}

// lost forgets what ran on a node.
func (t *tracker) lost(node sheaf.NodeID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.refuses, node)
	delete(t.held, node)
	for _, r := range t.runs {
		delete(r.nodes, node)
		for p, x := range r.running {
			if x.node == node {
				delete(r.running, p)
			}
		}
		r.tail.lost(node)
	}
}

// forget keeps nothing of a run.
func (t *tracker) forget(run sheaf.RunID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.runs, run)
	t.blame.Forget(run)
}

// Measures are a run's, at one moment.
type Measures struct {
	Rate    float64 // partitions ended a second, over the last ten
	Recent  float64 // the same over the last three
	Running sheaf.Ranges
	Slowest []Slow
}

// Slow is a partition that has been running for long.
type Slow struct {
	Partition int
	Attempt   uint32
	Node      sheaf.NodeID
	Since     time.Time
}

func (t *tracker) measures(run sheaf.RunID, now time.Time) Measures {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.runs[run]
	if r == nil {
		return Measures{}
	}
	m := Measures{Rate: r.rate.over(now, windowSeconds), Recent: r.rate.over(now, 3)}
	at := make([]uint32, 0, len(r.running))
	for p, x := range r.running {
		at = append(at, p)
		s := Slow{int(p), x.attempt, x.node, x.since}
		i, _ := slices.BinarySearchFunc(m.Slowest, s, func(a, b Slow) int { return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.Partition, b.Partition)) })
		if i < slowest {
			m.Slowest = slices.Insert(m.Slowest, i, s)
			m.Slowest = m.Slowest[:min(len(m.Slowest), slowest)]
		}
	}
	slices.Sort(at)
	for _, p := range at {
		m.Running = m.Running.Add(int(p))
	}
	return m
}

// windowSeconds is how far back a rate looks.
const windowSeconds = 10

// window counts events by second, for the last windowSeconds and the one under way.
type window struct {
	counts [windowSeconds + 1]int
	last   int64 // the second under way, Unix
	first  int64 // the second of the first event
}

func (w *window) advance(now time.Time) {
	sec := now.Unix()
	if w.first == 0 {
		w.first, w.last = sec, sec
	}
	for ; w.last < sec; w.last++ {
		if sec-w.last > int64(len(w.counts)) {
			w.counts = [windowSeconds + 1]int{}
			w.last = sec - 1
		}
		w.counts[(w.last+1)%int64(len(w.counts))] = 0
	}
}

func (w *window) add(now time.Time, n int) {
	w.advance(now)
	w.counts[w.last%int64(len(w.counts))] += n
}

// count is the events of the last so many seconds and the part of the one under way, or since the first
// event where that is later, and how long that is.
func (w *window) count(now time.Time, seconds int64) (n int, within time.Duration) {
	if w.first == 0 {
		return 0, 0
	}
	w.advance(now)
	back := min(seconds, w.last-w.first)
	for i := range back + 1 {
		n += w.counts[(w.last-i)%int64(len(w.counts))]
	}
	return n, time.Duration(back)*time.Second + time.Duration(now.Nanosecond())
}

// over is events a second over the last so many seconds and the part of the one
// under way, or since the first event where that is later.
func (w *window) over(now time.Time, seconds int64) float64 {
	n, within := w.count(now, seconds)
	return float64(n) / max(within.Seconds(), 0.25)
}
