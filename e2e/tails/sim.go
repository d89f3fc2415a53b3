package main

import (
	"container/heap"
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/sheaf-run/agent/data/shard"
	"github.com/sheaf-run/agent/server/scheduler"
	"github.com/sheaf-run/agent/server/straggler"
	"github.com/sheaf-run/agent/sheaf"
)

// Measures against tails, one on top of the other.
const (
	nothing  = iota // what was placed stays where it is until it is over
	takeBack        // what waits at a busy node goes to an idle one
	backups         // and what is slow gets a second attempt
	largest         // and partitions that are known to be far larger go first
)

// setup is one simulation's conditions.
type setup struct {
	nodes, slots, tasks int
	measures            int
	seed                uint64
	load                load
}

// reaction is how long the leader takes from a report to what follows from it, in ms.
const reaction = 20

// attempt is one execution.
type attempt struct {
	task, number int
	node         int
	began, ends  int64 // ms; began is -1 while it waits
	over         bool
	spare        bool // a second attempt
}

// unit is how many bytes a size of 1 has.
const unit = 1 << 20

type task struct {
	attempts []*attempt // valid ones
	fence    int
	size     float64
	tried    int // second attempts that were given up
	done     bool
}

type node struct {
	running, queued []*attempt
}

// event is an end, or with nil a look of the leader's.
type event struct {
	at int64
	of *attempt
}

type events []event

func (e events) Len() int           { return len(e) }
func (e events) Less(i, j int) bool { return e[i].at < e[j].at }
func (e events) Swap(i, j int)      { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)        { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}

// world is a cluster with one run. The scheduler and the straggler's decisions are the
// agent's own; nodes, time and the log are not.
type world struct {
	setup
	now     int64
	events  events
	nodes   []node
	tasks   []task
	list    []scheduler.Node
	job     *sheaf.Job
	pending sheaf.Ranges
	large   []uint32   // partitions, as the split names them
	order   []*attempt // that began, in order; ended ones are dropped from the front
	took    straggler.Sketch
	ends    []int64 // when partitions were committed
	looks   map[int64]bool
	outcome outcome
	paired  float64 // ms that closed pairs ran side by side
	rest    int64   // the tail is not looked at before
	again   int64   // or, while partitions are pending, before
}

// outcome is what came of a simulation.
type outcome struct {
	makespan  float64 // ms
	committed float64 // ms of the attempts that count
	first     float64 // ms that the first attempts take, or would have taken
	wasted    float64 // ms of the attempts that do not count
	paired    float64 // ms in which two attempts at one partition ran side by side
	backups   int
	won       int // of the backups
	givenUp   int // of them, for another
	taken     int // back
	steps     []step
	etas      []eta
}

// step is slots that become busy or free.
type step struct {
	at int64
	by int
}

// eta is what was foreseen when a share of the run was over.
type eta struct {
	share     float64
	at        float64
	low, high float64
}

// etaAt are the shares of the run at which the ETA is written down.
var etaAt = []float64{0.25, 0.5, 0.75, 0.9}

func simulate(s setup) outcome {
	w := &world{setup: s, nodes: make([]node, s.nodes), tasks: make([]task, s.tasks), looks: map[int64]bool{},
		job:     &sheaf.Job{Type: sheaf.JobBatch, Datacenters: []string{"*"}, Task: sheaf.Task{Driver: "mock"}},
		pending: sheaf.Ranges{{First: 0, Last: s.tasks - 1}},
	}
	for i := range w.nodes {
		n := &sheaf.Node{ID: sheaf.NodeID(fmt.Sprintf("n%03d", i)), Session: 1, Status: sheaf.NodeReady, Eligible: true, Datacenter: "dc1",
			Resources: sheaf.Resources{CPU: 1 << 20, Memory: 1 << 40, Disk: 1 << 40, Pids: 1 << 20}, Drivers: []sheaf.NodeDriver{{Name: "mock", Healthy: true}}}
		w.list = append(w.list, scheduler.Node{Node: n, Joined: true, Slots: s.slots})
	}
	w.sizes()
	for i := range w.tasks {
		w.outcome.first += w.draw(i, 1, i%s.nodes)
	}
	w.look()
	for len(w.ends) < s.tasks {
		e := heap.Pop(&w.events).(event)
		w.now = e.at
		switch {
		case e.of == nil:
			delete(w.looks, e.at)
			w.look()
		case !e.of.over:
			w.end(e.of)
		}
	}
	w.outcome.makespan = float64(w.now)
	w.outcome.paired = w.paired
	return w.outcome
}

// sizes draws how large the partitions are.
func (w *world) sizes() {
	var l shard.Largest
	for i := range w.tasks {
		w.tasks[i].size = 1
		if w.load.size != nil {
			w.tasks[i].size = w.load.size(rand.New(rand.NewPCG(w.seed, uint64(i)<<8)))
		}
		l.Add(i, int64(unit*w.tasks[i].size))
	}
	if w.measures >= largest {
		w.large = l.Partitions()
	}
}

// draw is the same for the same attempt whatever is done about tails.
func (w *world) draw(task, number, node int) float64 {
	return w.tasks[task].size * w.load.took(rand.New(rand.NewPCG(w.seed, uint64(task)<<8|uint64(number))), node)
}

func (w *world) later(ms int64) {
	at := w.now + max(ms, 1)
	if !w.looks[at] {
		w.looks[at] = true
		heap.Push(&w.events, event{at: at})
	}
}

// place queues the next attempt at a task on a node, and begins it where there is room.
func (w *world) place(task, node int, spare bool) {
	t := &w.tasks[task]
	t.fence++
	a := &attempt{task: task, number: t.fence, node: node, began: -1, spare: spare}
	t.attempts = append(t.attempts, a)
	w.nodes[node].queued = append(w.nodes[node].queued, a)
	w.begin(node)
}

func (w *world) begin(at int) {
	n := &w.nodes[at]
	for len(n.running) < w.slots && len(n.queued) > 0 {
		a := n.queued[0]
		n.queued = n.queued[1:]
		a.began = w.now
		a.ends = w.now + max(int64(math.Round(w.draw(a.task, a.number, at))), 1)
		n.running = append(n.running, a)
		w.outcome.steps = append(w.outcome.steps, step{w.now, 1})
		w.order = append(w.order, a)
		heap.Push(&w.events, event{a.ends, a})
	}
}

// drop ends an attempt that began or not.
func (w *world) drop(a *attempt) {
	a.over = true
	if a.began >= 0 {
		w.outcome.steps = append(w.outcome.steps, step{w.now, -1})
	}
	n := &w.nodes[a.node]
	n.running = without(n.running, a)
	n.queued = without(n.queued, a)
	w.tasks[a.task].attempts = without(w.tasks[a.task].attempts, a)
	w.begin(a.node)
}

func without(list []*attempt, a *attempt) []*attempt {
	var out []*attempt
	for _, x := range list {
		if x != a {
			out = append(out, x)
		}
	}
	return out
}

// end commits an attempt and ends the other.
func (w *world) end(a *attempt) {
	t := &w.tasks[a.task]
	t.done = true
	w.outcome.committed += float64(w.now - a.began)
	if a.spare {
		w.outcome.won++
	}
	for _, other := range t.attempts {
		if other != a && other.began >= 0 {
			w.outcome.wasted += float64(w.now - other.began)
			w.paired += float64(w.now - max(other.began, a.began))
		}
	}
	for _, x := range append([]*attempt(nil), t.attempts...) {
		w.drop(x)
	}
	w.took.Add(0, uint32(w.now-a.began))
	w.ends = append(w.ends, w.now)
	for _, share := range etaAt {
		if len(w.ends) == int(share*float64(w.setup.tasks)) {
			w.foresee(share)
		}
	}
	w.later(reaction)
}
