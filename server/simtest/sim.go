// Package simtest runs the protocol in a simulation: the real state machine,
// dispatch core, broker queue and scheduler, with model clients, over a clock and a network
// that a seed decides. It crashes clients and leaders, cuts, delays, repeats and loses, and
// holds what the log decides against a book of its own after every command. The
// same seed gives the same run, to the byte of the log.
package simtest

import (
	"container/heap"
	"fmt"
	"hash"
	"hash/fnv"
	"math/rand/v2"

	"github.com/sheaf-run/agent/server/fsm"
	"github.com/sheaf-run/agent/server/state"
)

// Bounds of one simulation, in simulated milliseconds.
const (
	minCommands = 200     // a run with fewer proves too little
	chaosMs     = 12_000  // faults go on at least so long
	maxChaosMs  = 120_000 // and at most so long, commands or not
	calmMs      = 300_000 // then everything must be over
	leaseMs     = 3_000
	graceMs     = 4_000 // a node gone for longer is not waited for by a merge
)

// Outcome is what one seed did.
type Outcome struct {
	Seed       uint64
	Hash       uint64 // of the log and the verdicts: equal for equal seeds
	Commands   int
	Commits    int
	Merges     int
	Reduces    int
	Crashes    int // of clients and leaders
	Duplicates int
	Losses     int // messages, and executions lost
	Backups    int
	TakenBack  int
	Retries    int
	Invalid    int // outputs that were made again
	Changes    int // of how runs are scheduled
	Bounded    int // placements of runs with a bound
	Ops        int // placements of runs that are for given nodes
	Adopted    int // partitions taken over from earlier runs
	Unchanged  int // merges that took over the result of an earlier run
	Let        int // runs that were let go by one that they come after
	Published  int // manifests
	Inherited  int // results that another attempt than the one that sealed was to publish
	Restores   int // leaders that began from a snapshot
	Digest     string
	History    *history // for the linearizability check
}

// Violation is a broken promise, as an error.
type Violation struct {
	Seed    uint64
	Command int
	What    string
}

// Error names the seed, with which it can be seen again.
func (v *Violation) Error() string {
	return fmt.Sprintf("seed %d, command %d: %s\nrun it alone with: go test ./server/simtest -run TestSeeds -seed %d", v.Seed, v.Command, v.What, v.Seed)
}

// world is one simulation.
type world struct {
	rng     *rand.Rand
	now     int64 // simulated ms since 1970
	events  events
	seq     uint64
	machine *fsm.Machine
	chunks  *state.MemoryChunks
	log     [][]byte // entry i has index i+1
	image   []byte   // of the newest snapshot
	imageAt int      // entries that it holds
	leader  *leader  // nil while there is none
	clients []*client
	book    *oracle
	user    *user
	bucket  *bucket
	deeds   []*deed // under way
	calm    bool
	hash    hash.Hash64
	out     Outcome
}

// Run simulates one seed. The error is a *Violation.
func Run(seed uint64) (out Outcome, err error) {
	w := &world{rng: rand.New(rand.NewPCG(seed, 0x5bea)), now: 1_000_000, hash: fnv.New64a(), chunks: &state.MemoryChunks{}}
	w.out.Seed = seed
	w.machine = fsm.New(state.New(w.chunks))
	w.book = newOracle(w)
	w.bucket = newBucket(w)
	defer func() {
		for _, d := range w.deeds {
			d.abandon()
		}
		if r := recover(); r != nil {
			v, ok := r.(*Violation)
			if !ok {
				panic(r)
			}
			err = v
		}
	}()
	w.begin()
	end := w.now + chaosMs
	for most := w.now + maxChaosMs; w.now < end || len(w.log) < minCommands && w.now < most; {
		w.step()
	}
	w.heal()
	for most := w.now + calmMs; !w.quiet(); {
		if w.now > most {
			w.fail("%s after %d s without faults", w.unfinished(), calmMs/1000)
		}
		w.step()
	}
	w.book.final()
	w.bucket.final()
	w.out.Hash = w.hash.Sum64()
	w.out.Digest = w.store().Snapshot().Digest()
	w.out.Commands = len(w.log)
	w.out.History = w.book.history
	return w.out, nil
}

func (w *world) begin() {
	n := 2 + w.rng.IntN(4)
	for i := range n {
		w.clients = append(w.clients, newClient(w, i))
	}
	w.user = &user{w: w}
	w.elect()
	for _, c := range w.clients {
		w.after(w.between(0, 300), c.connect)
	}
	w.user.start()
	w.faults()
}

func (w *world) store() *state.Store { return w.machine.Store() }

func (w *world) snap() *state.Snapshot { return w.store().Snapshot() }

// fail ends the simulation.

func (w *world) fail(format string, args ...any) {
	panic(&Violation{Seed: w.out.Seed, Command: len(w.log), What: fmt.Sprintf(format, args...)})
}

// chance is true once in n times.
func (w *world) chance(n int) bool { return w.rng.IntN(n) == 0 }

// between is a number from lo to hi-1.
func (w *world) between(lo, hi int) int64 { return int64(lo + w.rng.IntN(hi-lo)) }

// event is something that happens later.
type event struct {
	at  int64
	seq uint64 // those of the same moment happen in the order they were made
	do  func()
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at < e[j].at || e[i].at == e[j].at && e[i].seq < e[j].seq
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	old := *e
	x := old[len(old)-1]
	*e = old[:len(old)-1]
	return x
}

// after lets f happen in d ms.
func (w *world) after(d int64, f func()) {
	w.seq++
	heap.Push(&w.events, event{w.now + d, w.seq, f})
}

// step lets the next event happen.
func (w *world) step() {
	if len(w.events) == 0 {
		w.fail("nothing is left to happen")
	}
	e := heap.Pop(&w.events).(event)
	w.now = e.at
	e.do()
}
