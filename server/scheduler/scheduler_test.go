package scheduler_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/sheaf-run/agent/server/scheduler"
	"github.com/sheaf-run/agent/sheaf"
)

// node is a healthy node with room for ten of job's executions.
func node(id string, change ...func(*scheduler.Node)) scheduler.Node {
	n := scheduler.Node{Joined: true, Node: &sheaf.Node{
		ID: sheaf.NodeID(id), Status: sheaf.NodeReady, Eligible: true, Session: 1,
		Resources: sheaf.Resources{CPU: 1000, Memory: 10 << 30, Disk: 10 << 30, Pids: 10_000},
		Drivers:   []sheaf.NodeDriver{{Name: "wasm", Healthy: true}},
		Sources:   []sheaf.NodeSource{{Scheme: "file", Root: "/data"}},
	}}
	for _, c := range change {
		c(&n)
	}
	return n
}

func job(change ...func(*sheaf.Job)) *sheaf.Job {
	j := &sheaf.Job{Name: "j", Count: 1, Task: sheaf.Task{Driver: "wasm", Resources: sheaf.Resources{CPU: 100, Memory: 1 << 30, Disk: 1 << 30, Pids: 100}}}
	for _, c := range change {
		c(j)
	}
	return j
}

func reads(source string) func(*sheaf.Job) {
	return func(j *sheaf.Job) { j.Inputs = append(j.Inputs, sheaf.Input{Name: "in", Source: source, Mount: "/in"}) }
}

func upTo(n int) sheaf.Ranges { return sheaf.Ranges{{First: 0, Last: n - 1}} }

// shared makes the node's directory the same on every node.
func shared(n *scheduler.Node) {
	n.Sources = []sheaf.NodeSource{{Scheme: "file", Root: "/data", Shared: true}}
}

func TestFilterSaysWhy(t *testing.T) {
	for _, c := range []struct {
		name string
		node func(*scheduler.Node)
		job  func(*sheaf.Job)
		code scheduler.Code
		text string
	}{
		{"down", func(n *scheduler.Node) { n.Status = sheaf.NodeDown }, nil, scheduler.Down, "is down"},
		{"suspected", func(n *scheduler.Node) { n.Suspected = true }, nil, scheduler.Down, "gossip"},
		{"ineligible", func(n *scheduler.Node) { n.Eligible = false }, nil, scheduler.Ineligible, "ineligible"},
		{"joining", func(n *scheduler.Node) { n.Joined = false }, nil, scheduler.Joining, "not connected"},
		{"driver", nil, func(j *sheaf.Job) { j.Task.Driver = "nope" }, scheduler.NoDriver, `"nope"`},
		{"sick driver", func(n *scheduler.Node) { n.Drivers[0].Healthy, n.Drivers[0].Reason = false, "no socket" }, nil, scheduler.Unhealthy, "no socket"},
		{"source", nil, reads("s3://bucket/x"), scheduler.NoSource, "s3://"},
		{"directory", nil, reads("file:///database"), scheduler.NoSource, "/database"},
		{"cpu", nil, func(j *sheaf.Job) { j.Task.Resources.CPU = 4000 }, scheduler.CPU, "needs 4000 MHz of cpu, the node has 1000 MHz"},
		{"memory", nil, func(j *sheaf.Job) { j.Task.Resources.Memory = 7 << 60 }, scheduler.Memory, "the node has 10GiB"},
		{"disk", nil, func(j *sheaf.Job) { j.Task.Resources.Disk = 1 << 40 }, scheduler.Disk, "1TiB of disk"},
		{"pids", nil, func(j *sheaf.Job) { j.Task.Resources.Pids = 99_999 }, scheduler.Pids, "99999 pids"},
		{"refuses", func(n *scheduler.Node) { n.Refuses = "disk is full" }, nil, scheduler.Refusing, "disk is full"},
		{"prepare", func(n *scheduler.Node) { n.Blocked = "no such image" }, nil, scheduler.Prepare, "no such image"},
	} {
		t.Run(c.name, func(t *testing.T) {
			n, j := node("a"), job()
			if c.node != nil {
				c.node(&n)
			}
			if c.job != nil {
				c.job(j)
			}
			plan := scheduler.Schedule(scheduler.Request{Job: j, Ready: upTo(1), Nodes: []scheduler.Node{n}})
			if len(plan.Placements) != 0 || plan.Left != 1 || plan.Explanation.Feasible != 0 {
				t.Fatalf("placed on a node that cannot: %+v", plan)
			}
			r := plan.Explanation.Reasons
			if len(r) != 1 || r[0].Code != c.code || !strings.Contains(r[0].Text, c.text) || len(r[0].Nodes) != 1 {
				t.Errorf("reasons %+v, want one of code %s with %q", r, c.code, c.text)
			}
		})
	}
}

// count gives how many partitions each node got.
func count(p scheduler.Plan) map[sheaf.NodeID]int {
	m := map[sheaf.NodeID]int{}
	for _, x := range p.Placements {
		m[x.Node] += x.Partitions.Len()
	}
	return m
}

func TestSpread(t *testing.T) {
	busy := func(load float64) func(*scheduler.Node) { return func(n *scheduler.Node) { n.Load = load } }
	held := func(bytes int64) func(*scheduler.Node) { return func(n *scheduler.Node) { n.Held = bytes } }
	for _, c := range []struct {
		name  string
		ready int
		nodes []scheduler.Node
		want  string
	}{
		{"a few go everywhere", 4, []scheduler.Node{node("a"), node("b")}, "map[a:2 b:2]"},
		{"an odd one", 1, []scheduler.Node{node("a"), node("b")}, "map[a:1]"},
		{"the idle node first", 5, []scheduler.Node{node("a", busy(1)), node("b")}, "map[b:5]"},
		{"then both", 15, []scheduler.Node{node("a", busy(1)), node("b")}, "map[a:3 b:12]"},
		{"many fill slots and lookahead", 1000, []scheduler.Node{node("a"), node("b")}, "map[a:20 b:20]"},
		{"a fast node gets a second's work", 1000, []scheduler.Node{node("a", func(n *scheduler.Node) { n.Rate = 300 })}, "map[a:310]"},
		{"one that has enough waits", 1000, []scheduler.Node{node("a", func(n *scheduler.Node) { n.Assigned = 15 }), node("b")}, "map[b:20]"},
		{"one that fails everything gets a trickle", 1000, []scheduler.Node{node("a", func(n *scheduler.Node) { n.Failed = 40 }), node("b")}, "map[a:1 b:20]"},
		{"the one with the data first", 2, []scheduler.Node{node("a"), node("b", held(1<<30))}, "map[b:2]"},
		{"as much as is worth fetching less", 5, []scheduler.Node{node("a"), node("b", held(1<<30))}, "map[a:1 b:4]"},
		{"less of the data, less of the work", 10, []scheduler.Node{node("a", held(1<<20)), node("b", held(1<<30))}, "map[a:4 b:6]"},
		{"data does not make up for a busy node", 5, []scheduler.Node{node("a"), node("b", held(1<<30), busy(1))}, "map[a:5]"},
		{"a node that stands out by failures comes last", 3, []scheduler.Node{node("a", avoided(0.2, 0)), node("b")}, "map[b:3]"},
		{"and gets what others have no slots for", 13, []scheduler.Node{node("a", avoided(0.2, 0)), node("b")}, "map[a:1 b:12]"},
		{"up to what may end well, nothing ahead", 1000, []scheduler.Node{node("a", avoided(0.2, 0)), node("b")}, "map[a:8 b:20]"},
		{"one that mostly fails, a trickle", 1000, []scheduler.Node{node("a", avoided(0.97, 0)), node("b")}, "map[a:1 b:20]"},
		{"and not before it has rested", 1000, []scheduler.Node{node("a", avoided(0.97, time.Second)), node("b")}, "map[b:20]"},
		{"unless there is no other", 1000, []scheduler.Node{node("a", avoided(0.97, time.Second))}, "map[a:1]"},
		{"nor any that does better", 1000, []scheduler.Node{node("a", avoided(0.97, time.Second)), node("b", avoided(0.97, time.Minute))}, "map[a:1 b:1]"},
		{"where the run itself goes well it is as good as any", 1000, []scheduler.Node{node("a", avoided(0.97, time.Second), func(n *scheduler.Node) { n.Succeeded = 20 }), node("b")}, "map[a:20 b:20]"},
		{"measured slots count", 1000, []scheduler.Node{node("a", func(n *scheduler.Node) { n.Slots = 3 })}, "map[a:6]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			plan := scheduler.Schedule(scheduler.Request{Job: job(), Ready: upTo(c.ready), Nodes: c.nodes})
			if got := fmt.Sprint(count(plan)); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

// avoided is a node on which a share of executions fails, and that rests.
func avoided(share float64, rests time.Duration) func(*scheduler.Node) {
	return func(n *scheduler.Node) { n.Avoid, n.AvoidWhy, n.Rests = share, "9 of 10 failed", rests }
}

// TestAvoidedNodes: why a node gets nothing is said, and when it may have more; a split or a second attempt does
// not go to one that mostly fails.
func TestAvoidedNodes(t *testing.T) {
	r := scheduler.Request{Job: job(), Ready: upTo(100), Nodes: []scheduler.Node{node("a", avoided(0.9, 3*time.Second)), node("b", avoided(0.9, 2*time.Second)), node("c")}}
	plan := scheduler.Schedule(r)
	if plan.Again != 2*time.Second || !strings.Contains(plan.Explanation.Text(), "2 nodes: rests after a failure") {
		t.Errorf("again after %v: %s", plan.Again, plan.Explanation.Text())
	}
	if p := plan.Explanation.Preferred; len(p) != 1 || p[0].Code != scheduler.Failing || len(p[0].Nodes) != 2 || p[0].Text != "others are preferred to it: 9 of 10 failed" {
		t.Errorf("%+v", p)
	}
	if able := scheduler.Able(r); len(able) != 1 || able["c"] == 0 {
		t.Errorf("second attempts may go to %v", able)
	}
	r.Ready = upTo(5)
	if plan := scheduler.Schedule(r); plan.Left != 0 || plan.Again != 0 {
		t.Errorf("%d left, again after %v", plan.Left, plan.Again)
	}
	r.Kind = scheduler.Split
	r.Nodes[2].Load = 5
	if plan := scheduler.Schedule(r); plan.Placements[0].Node != "c" {
		t.Errorf("the split goes to %v", plan.Placements)
	}
}

func TestExplainSaysWhoHasTheData(t *testing.T) {
	nodes := []scheduler.Node{node("a"), node("b", func(n *scheduler.Node) { n.Held = 3 << 30 })}
	for kind, want := range map[scheduler.Kind]string{scheduler.Partitions: "near [b] is preferred: it has 3GiB from", scheduler.Merge: ""} {
		var got string
		for _, r := range scheduler.Schedule(scheduler.Request{Job: job(), Kind: kind, Ready: upTo(1), Nodes: nodes}).Explanation.Preferred {
			got += fmt.Sprint(r.Code, " ", r.Nodes, " ", r.Text)
		}
		if !strings.HasPrefix(got, want) || want == "" && got != "" {
			t.Errorf("kind %d: got %q, want %q", kind, got, want)
		}
	}
}

func TestRetriesPreferAnotherNode(t *testing.T) {
	r := scheduler.Request{Job: job(func(j *sheaf.Job) { j.Retry.OtherNode = true }), Ready: upTo(6),
		Retries: []scheduler.Retry{{Range: sheaf.Range{First: 0, Last: 1}, Node: "a"}, {Range: sheaf.Range{First: 4, Last: 4}, Node: "b"}},
		Nodes:   []scheduler.Node{node("a"), node("b")}}
	plan := scheduler.Schedule(r)
	for _, p := range plan.Placements {
		if p.Node == "a" && (p.Partitions.Contains(0) || p.Partitions.Contains(1)) || p.Node == "b" && p.Partitions.Contains(4) {
			t.Errorf("a retry went back to the node that failed it: %+v", plan.Placements)
		}
	}
	// They wait for the other node while it is full, and for no node that cannot take them.
	full := r
	full.Nodes = []scheduler.Node{node("a"), node("b", func(n *scheduler.Node) { n.Assigned = 20 })}
	if plan := scheduler.Schedule(full); plan.Left != 2 || plan.Placements[0].Partitions.Contains(0) {
		t.Errorf("with the other node full: %+v", plan)
	}
	r.Nodes = r.Nodes[:1]
	if got := fmt.Sprint(count(scheduler.Schedule(r))); got != "map[a:6]" {
		t.Errorf("with one node only: %s, want everything there all the same", got)
	}
}

func TestFilesPinTheWork(t *testing.T) {
	j := job(reads("file:///data/in"))
	for _, c := range []struct {
		name  string
		pin   sheaf.NodeID
		nodes []scheduler.Node
		want  string
	}{
		{"private files stay with whoever listed them", "b", []scheduler.Node{node("a"), node("b")}, "map[b:8]"},
		{"shared files go anywhere", "b", []scheduler.Node{node("a", shared), node("b", shared)}, "map[a:4 b:4]"},
		{"not to those that see others", "b", []scheduler.Node{node("a"), node("b", shared), node("c", shared)}, "map[b:4 c:4]"},
		{"nor anywhere when the node is gone", "x", []scheduler.Node{node("a"), node("b")}, "map[]"},
		{"unlisted ones choose one node", "", []scheduler.Node{node("a"), node("b")}, "map[a:8]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			plan := scheduler.Schedule(scheduler.Request{Job: j, Ready: upTo(8), Pin: c.pin, Nodes: c.nodes})
			if got := fmt.Sprint(count(plan)); got != c.want {
				t.Errorf("got %s, want %s (%+v)", got, c.want, plan.Explanation)
			}
		})
	}
}

func TestSplitAndMerge(t *testing.T) {
	nodes := []scheduler.Node{node("a", func(n *scheduler.Node) { n.Load = 1 }), node("b"), node("c", func(n *scheduler.Node) { n.Committed, n.Load, n.Drivers = 7, 9, nil })}
	place := func(k scheduler.Kind, j *sheaf.Job) sheaf.NodeID {
		p := scheduler.Schedule(scheduler.Request{Job: j, Kind: k, Nodes: nodes}).Placements
		if len(p) == 0 {
			return ""
		}
		return p[0].Node
	}
	if got := place(scheduler.Split, job(reads("file:///data"))); got != "b" {
		t.Errorf("the split went to %q, want the least busy node that can run the job", got)
	}
	if got := place(scheduler.Split, job(reads("s3://x"))); got != "" {
		t.Errorf("the split went to %q, which cannot read the input", got)
	}
	if got := place(scheduler.Merge, job()); got != "c" {
		t.Errorf("the merge went to %q, want where the outputs lie", got)
	}
}

// Whatever the nodes and the need: each partition goes to at most one node, to one
// that can run it, within its budget; and nothing is left while there is room.
func TestScheduleProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var nodes []scheduler.Node
		for i := range rapid.IntRange(0, 12).Draw(t, "nodes") {
			nodes = append(nodes, node(fmt.Sprint("n", i), func(n *scheduler.Node) {
				n.Slots = rapid.IntRange(1, 9).Draw(t, "slots")
				n.Assigned = rapid.IntRange(0, 20).Draw(t, "assigned")
				n.Load = rapid.Float64Range(0, 3).Draw(t, "load")
				n.Rate = rapid.Float64Range(0, 50).Draw(t, "rate")
				n.Failed = rapid.IntRange(0, 20).Draw(t, "failed")
				n.Succeeded = rapid.IntRange(0, 20).Draw(t, "succeeded")
				n.Eligible = rapid.Bool().Draw(t, "eligible")
				n.Avoid = rapid.SampledFrom([]float64{0, 0, 0.1, 0.6, 1}).Draw(t, "avoid")
				n.Rests = time.Duration(rapid.IntRange(0, 2).Draw(t, "rests")) * time.Second
			}))
		}
		var ready sheaf.Ranges
		var retries []scheduler.Retry
		at := 0
		for range rapid.IntRange(0, 8).Draw(t, "ranges") {
			first := at + rapid.IntRange(0, 5).Draw(t, "gap")
			last := first + rapid.IntRange(0, 30).Draw(t, "length")
			ready = ready.AddRange(first, last)
			if rapid.Bool().Draw(t, "retry") {
				retries = append(retries, scheduler.Retry{Range: sheaf.Range{First: first, Last: first + (last-first)/2}, Node: sheaf.NodeID(fmt.Sprint("n", rapid.IntRange(0, 12).Draw(t, "failed on")))})
			}
			at = last + 1
		}
		r := scheduler.Request{Job: job(func(j *sheaf.Job) { j.Retry.OtherNode = true }), Ready: ready, Retries: retries, Nodes: nodes}
		plan := scheduler.Schedule(r)
		if again := scheduler.Schedule(r); fmt.Sprint(again) != fmt.Sprint(plan) {
			t.Fatalf("twice the same request, two plans:\n%v\n%v", plan, again)
		}
		seen := map[int]sheaf.NodeID{}
		for _, p := range plan.Placements {
			last := -2
			for _, x := range p.Partitions {
				if x.First <= last+1 || x.Last < x.First {
					t.Fatalf("ranges of %s are out of order or touch: %v", p.Node, p.Partitions)
				}
				last = x.Last
				for i := x.First; i <= x.Last; i++ {
					if other, ok := seen[i]; ok || !ready.Contains(i) {
						t.Fatalf("partition %d went to %s, and to %s", i, p.Node, other)
					}
					seen[i] = p.Node
				}
			}
		}
		if len(seen)+plan.Left != ready.Len() {
			t.Fatalf("%d placed and %d left of %d", len(seen), plan.Left, ready.Len())
		}
		got := count(plan)
		for _, n := range nodes {
			most := n.Slots + max(n.Slots, int(n.Rate)+1)
			if n.Assigned+got[n.ID] > most && got[n.ID] > 0 {
				t.Fatalf("%s holds %d and got %d more, over %d", n.ID, n.Assigned, got[n.ID], most)
			}
			if !n.Eligible && got[n.ID] > 0 {
				t.Fatalf("%s is not eligible and got %d", n.ID, got[n.ID])
			}
			waits := 0 // retries that this node failed
			for _, x := range retries {
				if x.Node == n.ID {
					waits += x.Range.Last - x.Range.First + 1
				}
			}
			rests := n.Avoid >= 0.5 && n.Rests > 0 && plan.Again > 0
			if n.Eligible && n.Assigned == 0 && got[n.ID] == 0 && plan.Left > waits && !rests {
				t.Fatalf("%s is idle while %d are left", n.ID, plan.Left)
			}
		}
	})
}

// BenchmarkMillionOverThousand plans a million partitions over a thousand nodes
// with constraints of sources, failures and a retry on every hundredth partition.
func BenchmarkMillionOverThousand(b *testing.B) {
	var nodes []scheduler.Node
	for i := range 1000 {
		nodes = append(nodes, node(fmt.Sprintf("n%04d", i), shared, func(n *scheduler.Node) {
			n.Rate, n.Assigned, n.Failed, n.Succeeded = 2000, i%7, i%5, 100
			n.Eligible = i%50 != 0
		}))
	}
	var retries []scheduler.Retry
	for i := 0; i < 1_000_000; i += 100 {
		retries = append(retries, scheduler.Retry{Range: sheaf.Range{First: i, Last: i}, Node: nodes[i/100%1000].ID})
	}
	r := scheduler.Request{Job: job(reads("file:///data/x"), func(j *sheaf.Job) { j.Retry.OtherNode = true }), Ready: upTo(1_000_000), Retries: retries, Nodes: nodes, Pin: "n0001"}
	b.ReportAllocs()
	for b.Loop() {
		if plan := scheduler.Schedule(r); plan.Left > 0 {
			b.Fatalf("%d left", plan.Left)
		}
	}
}
