package execution

import (
	"time"

	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/sheaf"
)

// Spec is what the core knows of a run.
type Spec struct {
	ID         sheaf.RunID
	Generation uint32
	Driver     string
	Need       Need          // of one partition, without its shard's bytes
	Weight     int           // its share of the node beside other runs; at least 1
	Timeout    time.Duration // of one try; 0 is none
	Shards     bool          // each partition has a shard, to be fetched before it begins
	Stages     bool          // it has inputs or outputs: directories are made before it starts, and harvested or removed after it
	Limits     sheaf.Resources
	Ignore     []int // exit codes that the servers count as succeeded
}

// gate says whether partitions of a run may begin, as far as its driver is concerned.
type gate uint8

const (
	gateShut      gate = iota // nothing was asked of the driver yet
	gatePreparing             // the driver was asked
	gateOpen
	gateFailed // until the server assigns more of the run
)

// Run is what the client has of one run. Data is the caller's own.
type Run struct {
	Spec
	Data any

	gate  gate
	queue queue
	// window is the front of the queue, where partitions have shards: taken out of
	// the spans to be fetched, not begun, and still to be taken back or killed.
	window   []candidate
	fetching bool
	refetch  time.Time // no fetch before, after one that failed

	live   map[uint64]*Execution // begun, and not durable
	going  map[uint32]int        // how many of live are at a partition: 1, but for what was re-attached
	ready  []*Execution          // of live, staged while the gate was not open
	ended  map[uint64]*Result    // durable, and not answered
	unsent []*Result             // of ended, those that were not sent yet
	sent   time.Time             // when some were last
	own    map[ownKey]*Execution // splits and merges, from assignment to answer

	used    float64   // the sum of its live executions' dominant shares
	pass    float64   // executions begun, over the weight: decides between equal use
	blocked time.Time // since when its next partition does not fit
	rate    rate
	over    bool // no more of it will be assigned
	deleted bool
}

// candidate is a partition of a run's window.
type candidate struct {
	partition, attempt, generation uint32
	shard                          *sheaf.Shard // nil until fetched
	bytes                          int64        // of the shard
}

type ownKey struct {
	kind    wire.Kind
	attempt uint32
}

// key names an attempt at a partition within a run: attempts are never reset,
// whatever the generation.
func key(partition, attempt uint32) uint64 { return uint64(partition)<<32 | uint64(attempt) }

// waiting is how many partitions have not begun.
func (r *Run) waiting() int { return r.queue.count + len(r.window) }

// add makes e one of live.
func (r *Run) add(e *Execution) {
	r.live[key(e.Partition, e.Attempt)] = e
	r.going[e.Partition]++
}

// remove takes e out of live.
func (r *Run) remove(e *Execution) {
	delete(r.live, key(e.Partition, e.Attempt))
	if r.going[e.Partition]--; r.going[e.Partition] <= 0 {
		delete(r.going, e.Partition)
	}
}

// bringForward puts a partition in front at which no other attempt goes on here,
// and reports whether there is one: two attempts at a partition never run at
// once on a node. Those passed over go to the back.
func (r *Run) bringForward() bool {
	if len(r.window) > 0 {
		for range r.window {
			if r.going[r.window[0].partition] == 0 {
				return true
			}
			w := r.window[0]
			copy(r.window, r.window[1:])
			r.window[len(r.window)-1] = w
		}
		return false
	}
	for range min(r.queue.count, len(r.going)+1) {
		if r.going[r.queue.front()] == 0 {
			return true
		}
		r.queue.push(r.queue.pop(1))
	}
	return false
}

// enqueue queues s, but for what is here already: an attempt begins once, even
// if it is assigned twice.
func (r *Run) enqueue(s span) {
	r.queue.remove(s)
	here := map[uint32]bool{}
	for _, e := range matching(r.live, s) {
		here[e.Partition] = true
	}
	for _, res := range matching(r.ended, s) {
		here[res.Partition] = true
	}
	for _, w := range r.window {
		if w.attempt == s.attempt && w.partition >= s.first && w.partition < s.end() {
			here[w.partition] = true
		}
	}
	if len(here) == 0 {
		r.queue.push(s)
		return
	}
	for i := range s.count {
		if p := s.first + i; !here[p] {
			r.queue.push(span{first: p, count: 1, attempt: s.attempt, generation: s.generation})
		}
	}
}

// idle reports whether nothing of the run is left to do or to answer.
func (r *Run) idle() bool {
	return r.waiting() == 0 && len(r.live) == 0 && len(r.ended) == 0 && len(r.own) == 0
}

// Rate is how many of its partitions ended a second, lately.
func (r *Run) Rate() float64 { return r.rate.perSecond }

// rateHalfLife is how fast a rate forgets: short, so that lookahead grows
// within a second of a run's start; the servers smooth the rest.
const rateHalfLife = 500 * time.Millisecond

// rate counts events and smooths them to events a second.
type rate struct {
	count     int
	perSecond float64
}

// settle folds the events counted over the time that has passed.
func (r *rate) settle(passed time.Duration) {
	if passed <= 0 {
		return
	}
	now := float64(r.count) / passed.Seconds()
	r.count = 0
	keep := 1.0 / (1.0 + passed.Seconds()/rateHalfLife.Seconds())
	r.perSecond = r.perSecond*keep + now*(1-keep)
	if r.perSecond < 0.001 {
		r.perSecond = 0
	}
}

// Active reports whether anything of the run is waiting or under way.
func (r *Run) Active() bool { return r.waiting() > 0 || len(r.live) > 0 }

// Executions calls yield for each of its live executions, in no order.
func (r *Run) Executions(yield func(*Execution) bool) {
	for _, e := range r.live {
		if !yield(e) {
			return
		}
	}
}
