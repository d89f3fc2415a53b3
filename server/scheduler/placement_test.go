package scheduler_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sheaf-run/agent/server/scheduler"
	"github.com/sheaf-run/agent/sheaf"
)

func asks(attribute, operator, value string) func(*sheaf.Job) {
	return func(j *sheaf.Job) {
		j.Constraints = append(j.Constraints, sheaf.Constraint{Attribute: "${" + attribute + "}", Operator: operator, Value: value})
	}
}

func class(c string) func(*scheduler.Node) { return func(n *scheduler.Node) { n.Class = c } }

// TestReasonsAreGrouped: nodes that lack the same are one reason with their number; where each
// differs by a name of its own, there are no more reasons than a person reads.
func TestReasonsAreGrouped(t *testing.T) {
	var nodes []scheduler.Node
	for i := range 100 {
		nodes = append(nodes, node(fmt.Sprintf("n%02d", i), class([]string{"cpu", "gpu", "arm"}[i%3])))
	}
	e := scheduler.Schedule(scheduler.Request{Job: job(asks("node.class", "=", "tpu")), Ready: upTo(1), Nodes: nodes}).Explanation
	if len(e.Reasons) != 3 || len(e.Reasons[0].Nodes) != 34 || e.Reasons[0].Code != scheduler.Constraint {
		t.Errorf("%+v", e.Reasons)
	}
	if want := `34 nodes: node.class is "cpu", and the job asks for = "tpu"`; !strings.Contains(e.Text(), want) {
		t.Errorf("%q does not say %q", e.Text(), want)
	}
	e = scheduler.Schedule(scheduler.Request{Job: job(asks("node.id", "=", "x")), Ready: upTo(1), Nodes: nodes}).Explanation
	told := 0
	for _, r := range e.Reasons {
		told += len(r.Nodes)
	}
	if len(e.Reasons) > 20 || told != 100 {
		t.Errorf("%d reasons for %d nodes", len(e.Reasons), told)
	}
}

// TestAffinitiesAreFilledFirst: a node that is preferred has all its slots taken before others get any;
// one that is disliked comes last, and still gets what is left.
func TestAffinitiesAreFilledFirst(t *testing.T) {
	j := job(func(j *sheaf.Job) {
		j.Affinities = []sheaf.Affinity{
			{Constraint: sheaf.Constraint{Attribute: "${node.class}", Operator: "=", Value: "gpu"}, Weight: 100},
			{Constraint: sheaf.Constraint{Attribute: "${node.class}", Operator: "=", Value: "old"}, Weight: -100},
		}
	})
	nodes := []scheduler.Node{node("a", class("old")), node("b"), node("c", class("gpu"))}
	for _, c := range []struct {
		partitions int
		want       map[sheaf.NodeID]int
	}{
		{4, map[sheaf.NodeID]int{"c": 4}},
		{60, map[sheaf.NodeID]int{"a": 20, "b": 20, "c": 20}},
	} {
		got := map[sheaf.NodeID]int{}
		for _, p := range scheduler.Schedule(scheduler.Request{Job: j, Ready: upTo(c.partitions), Nodes: nodes}).Placements {
			got[p.Node] = p.Partitions.Len()
		}
		if fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("%d partitions go to %v, not %v", c.partitions, got, c.want)
		}
	}
	for _, k := range []scheduler.Kind{scheduler.Split, scheduler.Merge} {
		if p := scheduler.Schedule(scheduler.Request{Job: j, Kind: k, Nodes: nodes}).Placements; len(p) != 1 || p[0].Node != "c" && k == scheduler.Split {
			t.Errorf("kind %d goes to %v", k, p)
		}
	}
}

// TestBoundPartitions: each goes to its own node or waits, whatever the others have.
func TestBoundPartitions(t *testing.T) {
	nodes := []scheduler.Node{node("a"), node("b", func(n *scheduler.Node) { n.Joined = false }), node("c")}
	plan := scheduler.Schedule(scheduler.Request{Job: job(reads("file:///data/x")), Ready: sheaf.Ranges{{First: 2, Last: 3}, {First: 7, Last: 7}}, Bound: []sheaf.NodeID{"c", "b", "a"}, Nodes: nodes})
	if plan.Left != 1 || fmt.Sprint(plan.Placements) != "[{c 1 2} {a 1 7}]" {
		t.Errorf("%v, %d left", plan.Placements, plan.Left)
	}
}

// BenchmarkThousandNodes is the figure of P6: placement alone, with constraints, affinities, shared files and
// failures; its limit is 50 ms.
func BenchmarkThousandNodes(b *testing.B) {
	var nodes []scheduler.Node
	for i := range 1000 {
		n := node(fmt.Sprintf("n%04d", i), class([]string{"cpu", "gpu"}[i%2]), shared)
		n.Attributes = map[string]string{"cpu.arch": "amd64", "kernel.version": fmt.Sprintf("6.%d.0", i%20), "cpu.cores": fmt.Sprint(8 << (i % 3))}
		n.Rate, n.Slots, n.Failed, n.Succeeded = 1000, 32, i%3, 64
		nodes = append(nodes, n)
	}
	j := job(reads("file:///data/x"), asks("node.attr.cpu.arch", "=", "amd64"), asks("node.attr.kernel.version", ">=", "6.2"), asks("node.attr.cpu.cores", ">=", "8"), func(j *sheaf.Job) {
		j.Retry.OtherNode = true
		j.Affinities = []sheaf.Affinity{{Constraint: sheaf.Constraint{Attribute: "${node.class}", Operator: "=", Value: "gpu"}, Weight: 50}}
	})
	r := scheduler.Request{Job: j, Nodes: nodes, Pin: "n0002"}
	for p := 0; p < 1_000_000; p += 1000 {
		r.Ready = append(r.Ready, sheaf.Range{First: p, Last: p + 998})
		r.Retries = append(r.Retries, scheduler.Retry{Range: sheaf.Range{First: p, Last: p}, Node: "n0004"})
	}
	b.ReportAllocs()
	for b.Loop() {
		plan := scheduler.Schedule(r)
		if len(plan.Placements) < 500 {
			b.Fatalf("placed on %d nodes", len(plan.Placements))
		}
	}
}

func writes(sources ...sheaf.NodeSource) func(*scheduler.Node) {
	return func(n *scheduler.Node) {
		for _, s := range sources {
			s.Writable = true
			n.Sources = append(n.Sources, s)
		}
	}
}

// TestMergePublishesWhereItMayWrite: a merge that publishes goes to a node that may write there; what was
// written into a directory that is not shared is finished by the node that wrote it.
func TestMergePublishesWhereItMayWrite(t *testing.T) {
	own, shared := sheaf.NodeSource{Scheme: "file", Root: "/out"}, sheaf.NodeSource{Scheme: "file", Root: "/mnt", Shared: true}
	bucket := sheaf.NodeSource{Scheme: "s3", Root: "results-*", Shared: true}
	nodes := []scheduler.Node{
		node("a", func(n *scheduler.Node) { n.Sources = []sheaf.NodeSource{bucket, own, shared} }), // reads only
		node("b", writes(own)), node("c", writes(own, shared)), node("d", writes(bucket)),
		node("e", writes(sheaf.NodeSource{Scheme: "car", Root: "/mnt/cars"})), // c may write there too, and makes no CAR files
	}
	for _, c := range []struct {
		publish string
		wrote   sheaf.NodeID
		want    string
		says    string
	}{
		{publish: "", want: "a"},
		{publish: "s3://results-1/x", want: "d", says: "4 nodes: may not write to s3://results-1/x"},
		{publish: "s3://other/x", says: "5 nodes: may not write to"},
		{publish: "file:///out/x", want: "b"},
		{publish: "file:///out/x", wrote: "c", want: "c", says: "written by node c"},
		{publish: "file:///out/x", wrote: "gone", says: "written by node gone"},
		{publish: "file:///mnt/x", wrote: "gone", want: "c"},
		{publish: "car:///mnt/cars/x", want: "e"},
		{publish: "car:///mnt/x", says: "5 nodes: may not write to car:///mnt/x"},
	} {
		plan := scheduler.Schedule(scheduler.Request{Job: job(), Kind: scheduler.Merge, Publish: c.publish, Wrote: c.wrote, Nodes: nodes})
		got := ""
		for _, p := range plan.Placements {
			got += string(p.Node)
		}
		if got != c.want || !strings.Contains(plan.Explanation.Text(), c.says) {
			t.Errorf("%q, written by %q, goes to %q, not %q: %s", c.publish, c.wrote, got, c.want, plan.Explanation.Text())
		}
	}
}
