package main

import (
	"slices"
	"sort"
	"time"

	"github.com/sheaf-run/agent/server/scheduler"
	"github.com/sheaf-run/agent/server/straggler"
	"github.com/sheaf-run/agent/sheaf"
)

// look is the leader's turn: it places what is pending and looks after the tail.
func (w *world) look() {
	w.schedule()
	if w.measures == nothing {
		return
	}
	switch {
	case w.now < w.rest:
		w.later(w.rest - w.now)
		return
	case len(w.pending) > 0 && w.now < w.again:
		return
	}
	plan := straggler.Decide(w.request())
	w.rest, w.again = w.now+pause, w.now+max(pause, plan.Again.Milliseconds())
	for _, b := range plan.Backups {
		w.outcome.backups++
		if b.Instead {
			w.giveUp(b.Partition)
		}
		w.place(b.Partition, w.index(string(b.Node)), true)
	}
	back := false
	for _, t := range plan.TakeBack {
		n := &w.nodes[w.index(string(t.Node))]
		for range min(t.Most, len(n.queued)) {
			a := n.queued[len(n.queued)-1]
			w.drop(a)
			if len(w.tasks[a.task].attempts) == 0 {
				w.pending = w.pending.Union(sheaf.Ranges{{First: a.task, Last: a.task}})
			}
			w.outcome.taken++
			back = true
		}
	}
	if back {
		w.schedule()
	}
	w.later(w.again - w.now)
}

// giveUp ends the second attempt at a task.
func (w *world) giveUp(task int) {
	for _, a := range w.tasks[task].attempts {
		if a.spare {
			w.outcome.wasted += float64(w.now - a.began)
			w.paired += float64(w.now - a.began)
			w.drop(a)
			w.tasks[task].tried++
			w.outcome.givenUp++
			return
		}
	}
}

func (w *world) index(id string) int {
	return sort.Search(len(w.list), func(i int) bool { return string(w.list[i].ID) >= id })
}

// schedule places what is pending, the large ones first.
func (w *world) schedule() {
	first := scheduler.Largest(w.large, tasks, func(p int) bool { return w.tasks[p].fence == 0 })
	if w.give(first) == 0 {
		w.give(w.pending)
	}
}

// give places what is ready, and tells how many there is no room for.
func (w *world) give(ready sheaf.Ranges) (left int) {
	if len(ready) == 0 {
		return 0
	}
	for i := range w.list {
		n := &w.nodes[i]
		w.list[i].Assigned = len(n.running) + len(n.queued)
	}
	plan := scheduler.Schedule(scheduler.Request{Job: w.job, Ready: ready, Nodes: w.list})
	for _, p := range plan.Placements {
		for _, x := range p.Partitions {
			for i := x.First; i <= x.Last; i++ {
				w.place(i, w.index(string(p.Node)), false)
			}
			w.pending = minus(w.pending, x)
		}
	}
	return plan.Left
}

// minus is the ranges without those of x.
func minus(ranges sheaf.Ranges, x sheaf.Range) (out sheaf.Ranges) {
	for _, r := range ranges {
		if r.Last < x.First || r.First > x.Last {
			out = append(out, r)
			continue
		}
		if r.First < x.First {
			out = append(out, sheaf.Range{First: r.First, Last: x.First - 1})
		}
		if r.Last > x.Last {
			out = append(out, sheaf.Range{First: x.Last + 1, Last: r.Last})
		}
	}
	return out
}

func (w *world) running() (list []straggler.Running, under, doubles int, extra float64) {
	w.order = slices.DeleteFunc(w.order, func(a *attempt) bool { return a.over })
	extra = w.paired
	for _, a := range w.order {
		under++
		if a.spare {
			doubles++
			for _, other := range w.tasks[a.task].attempts {
				if other != a && other.began >= 0 {
					extra += float64(w.now - max(a.began, other.began))
				}
			}
			continue
		}
		if len(list) < straggler.MaxLooked {
			x := straggler.Running{Partition: a.task, Attempt: uint32(a.number), Node: w.list[a.node].ID,
				Age: time.Duration(w.now-a.began) * time.Millisecond, Doubled: len(w.tasks[a.task].attempts) > 1}
			for _, other := range w.tasks[a.task].attempts {
				if other.spare && other.began >= 0 {
					x.Second = straggler.Second{Node: w.list[other.node].ID, Age: time.Duration(w.now-other.began) * time.Millisecond, Tried: w.tasks[a.task].tried}
				}
			}
			list = append(list, x)
		}
	}
	return list, under, doubles, extra
}

func (w *world) request() straggler.Request {
	r := straggler.Request{Backups: w.measures >= backups, Pending: w.pending.Len(), Durations: &w.took}
	extra := 0.0
	r.Running, r.Under, r.Doubles, extra = w.running()
	r.Extra = time.Duration(extra) * time.Millisecond
	r.Nodes = w.forTails
	return r
}

func (w *world) forTails() (list []straggler.Node) {
	for i := range w.nodes {
		n := &w.nodes[i]
		assigned := len(n.running) + len(n.queued)
		list = append(list, straggler.Node{ID: w.list[i].ID, Able: true, Slots: w.slots, Assigned: assigned, Load: float64(assigned) / float64(w.slots)})
	}
	return list
}

// foresee writes down the ETA.
func (w *world) foresee(share float64) {
	a := straggler.Ahead{Backups: w.measures >= backups, Durations: &w.took, Slots: w.setup.nodes * w.slots, Within: window}
	a.Running, _, _, _ = w.running()
	for i := range w.tasks {
		if t := &w.tasks[i]; !t.done && !slices.ContainsFunc(t.attempts, func(a *attempt) bool { return a.began >= 0 }) {
			a.Waiting++
		}
	}
	for i := len(w.ends) - 1; i >= 0 && w.ends[i] > w.now-window.Milliseconds(); i-- {
		a.Ends++
	}
	low, high, ok := straggler.ETA(a)
	if ok {
		w.outcome.etas = append(w.outcome.etas, eta{share, float64(w.now), float64(low.Milliseconds()), float64(high.Milliseconds())})
	}
}

// pause is the least time between two looks at the tail, in ms.
const pause = 100

// window is how far back the leader measures rates.
const window = 10 * time.Second
