package blame_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/sheaf-run/agent/server/blame"
	"github.com/sheaf-run/agent/server/scheduler"
	"github.com/sheaf-run/agent/sheaf"
)

const (
	simNodes = 10
	simSlots = 4
	simTick  = 50 * time.Millisecond
	simBad   = 3
)

// history is a simulated cluster of which one node fails what it gets, quickly, until it is mended. Its
// scheduler is the agent's own.
type history struct {
	ledger     *blame.Ledger // nil remembers nothing beyond each run
	kind       sheaf.FailureKind
	partitions int
	mended     int // the run from which on the bad node is as good as any

	now      time.Time
	failures []int // by run
	bad      []int // partitions that the bad node did, by run
	took     []time.Duration
}

type attempt struct {
	partition, node int
	ends            time.Time
}

// play has the cluster work through runs, one after the other.
func (h *history) play(t *testing.T, runs int) {
	h.now = t0
	h.failures, h.bad, h.took = make([]int, runs), make([]int, runs), make([]time.Duration, runs)
	job := &sheaf.Job{Type: sheaf.JobBatch, Task: sheaf.Task{Driver: "mock"}, Retry: sheaf.Retry{OtherNode: true}}
	for run := range runs {
		began := h.now
		id := sheaf.RunID(fmt.Sprint("run", run))
		list := make([]scheduler.Node, simNodes)
		for i := range list {
			list[i] = scheduler.Node{Joined: true, Slots: simSlots, Node: &sheaf.Node{ID: sheaf.NodeID(fmt.Sprint("n", i)), Session: 1, Status: sheaf.NodeReady, Eligible: true,
				Drivers: []sheaf.NodeDriver{{Name: "mock", Healthy: true}}}}
		}
		ready := sheaf.Ranges{{First: 0, Last: h.partitions - 1}}
		failedOn := map[int]sheaf.NodeID{}
		var queues [simNodes][]attempt // the first simSlots of each run
		for done := 0; done < h.partitions; h.now = h.now.Add(simTick) {
			if h.now.Sub(began) > time.Hour {
				t.Fatalf("run %d does not end: %d of %d are done", run, done, h.partitions)
			}
			var again []int
			for i := range queues {
				queues[i] = slices.DeleteFunc(queues[i], func(a attempt) bool {
					if a.ends.IsZero() || a.ends.After(h.now) {
						return false
					}
					list[i].Assigned--
					if i == simBad && run < h.mended {
						list[i].Failed++
						h.failures[run]++
						failedOn[a.partition] = list[i].ID
						again = append(again, a.partition)
						if h.ledger != nil {
							h.ledger.Failed(id, uint32(a.partition), list[i].ID, h.kind, h.now)
						}
						return true
					}
					done++
					list[i].Succeeded++
					if i == simBad {
						h.bad[run]++
					}
					if h.ledger != nil {
						h.ledger.Succeeded(id, list[i].ID, 1, h.now)
						h.ledger.SucceededAt(id, uint32(a.partition), list[i].ID, h.now)
					}
					return true
				})
			}
			slices.Sort(again)
			for _, p := range again {
				ready = ready.Union(sheaf.Ranges{{First: p, Last: p}})
			}
			if h.ledger != nil {
				avoided := h.ledger.Avoided(h.now)
				for i := range list {
					r := avoided[list[i].ID]
					list[i].Avoid, list[i].AvoidWhy, list[i].Rests = r.Share, r.Why, max(r.Until.Sub(h.now), 0)
				}
			}
			var retries []scheduler.Retry
			for _, x := range ready {
				for p := x.First; p <= x.Last; p++ {
					if n := failedOn[p]; n != "" {
						retries = append(retries, scheduler.Retry{Range: sheaf.Range{First: p, Last: p}, Node: n})
					}
				}
			}
			plan := scheduler.Schedule(scheduler.Request{Job: job, Ready: ready, Retries: retries, Nodes: list})
			for _, x := range plan.Placements {
				at := slices.IndexFunc(list, func(n scheduler.Node) bool { return n.ID == x.Node })
				for _, r := range x.Partitions {
					for p := r.First; p <= r.Last; p++ {
						queues[at] = append(queues[at], attempt{partition: p, node: at})
						list[at].Assigned++
						ready = without(ready, p)
					}
				}
			}
			for i := range queues {
				for k := range min(simSlots, len(queues[i])) {
					if a := &queues[i][k]; a.ends.IsZero() {
						a.ends = h.now.Add(time.Second)
						if i == simBad && run < h.mended {
							a.ends = h.now.Add(simTick)
						}
					}
				}
			}
		}
		h.took[run] = h.now.Sub(began)
		if h.ledger != nil {
			h.ledger.Forget(id)
		}
		h.now = h.now.Add(30 * time.Second)
	}
}

func without(ranges sheaf.Ranges, p int) (out sheaf.Ranges) {
	for _, r := range ranges {
		if !(r.First <= p && p <= r.Last) {
			out = append(out, r)
			continue
		}
		if r.First < p {
			out = append(out, sheaf.Range{First: r.First, Last: p - 1})
		}
		if p < r.Last {
			out = append(out, sheaf.Range{First: p + 1, Last: r.Last})
		}
	}
	return out
}

func sum[T int | time.Duration](list []T) (n T) {
	for _, x := range list {
		n += x
	}
	return n
}

// TestFewerFailuresWithAMemory: one of ten nodes fails all that it gets, whether by its own doing or, as it
// seems, by the task's. What other runs had there keeps new runs from it, all runs take no longer, and once it is
// mended it is found out, and has its share again.
func TestFewerFailuresWithAMemory(t *testing.T) {
	for _, c := range []struct {
		kind       sheaf.FailureKind
		partitions int
	}{{sheaf.FailStage, 20}, {sheaf.FailStage, 400}, {sheaf.FailExit, 20}, {sheaf.FailExit, 400}} {
		t.Run(fmt.Sprint(c.kind, c.partitions), func(t *testing.T) {
			const bad, runs = 20, 60
			without := history{kind: c.kind, partitions: c.partitions, mended: bad}
			without.play(t, bad)
			with := history{kind: c.kind, partitions: c.partitions, mended: bad, ledger: blame.New()}
			with.play(t, runs)
			before, after := sum(without.failures), sum(with.failures[:bad])
			slow, fast := sum(with.took[:bad]), sum(without.took)
			t.Logf("%d executions failed with a memory and %d without; the runs took %v and %v; mended, the node did %v of each run", after, before, slow, fast, with.bad[bad:])
			if after*3 > before || slow > fast+fast/10 {
				t.Errorf("%d executions failed with a memory, %d without; the runs took %v and %v", after, before, slow, fast)
			}
			if share := sum(with.bad[runs-5:]); share*simNodes < 5*c.partitions/2 {
				t.Errorf("of the last five runs the mended node did %d of %d", share, 5*c.partitions)
			}
		})
	}
}
