package events

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/server/fsm"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/sheaf"
)

// cluster is a state machine whose log of events is looked at.
type cluster struct {
	t     *testing.T
	m     *fsm.Machine
	log   *Log
	index uint64
	all   [][]byte
}

func newCluster(t *testing.T) *cluster {
	c := &cluster{t: t, m: fsm.New(state.New(new(state.MemoryChunks))), log: New()}
	c.m.Observe(c.log.Applied)
	return c
}

// do applies a command at a cluster time of 1 s an entry.
func (c *cluster) do(cmd *fsm.Command) fsm.Reply {
	c.t.Helper()
	c.index++
	cmd.TimeMs = int64(c.index) * 1000
	b, err := fsm.Encode(cmd)
	if err != nil {
		c.t.Fatal(err)
	}
	c.all = append(c.all, b)
	reply, err := c.m.Apply(c.index, b)
	if err != nil {
		c.t.Fatal(err)
	}
	return reply
}

func (c *cluster) node(id string) {
	b, _ := json.Marshal(sheaf.Node{ID: sheaf.NodeID(id), Name: "host-" + id})
	c.do(&fsm.Command{Body: &fsm.Command_RegisterNode{RegisterNode: &fsm.RegisterNode{NodeJson: b, BootId: "1"}}})
}

func (c *cluster) run(id string, count int) {
	b, _ := json.Marshal(sheaf.Job{Name: "job", Namespace: "default", Count: count, Retry: sheaf.Retry{Attempts: 3}})
	c.do(&fsm.Command{Body: &fsm.Command_RegisterJob{RegisterJob: &fsm.RegisterJob{Run: id, JobJson: b}}})
}

func (c *cluster) place(run, node string, first, count uint32) {
	c.do(&fsm.Command{Body: &fsm.Command_ApplyPlan{ApplyPlan: &fsm.ApplyPlan{Placements: []*fsm.Placement{{Run: run, Node: node, Session: 1, First: []uint32{first}, Count: []uint32{count}}}}}})
}

// results commits one outcome for each partition.
func (c *cluster) results(run, node string, of map[uint32]sheaf.Outcome) {
	r := &wire.Results{Run: run, Generation: 1, Node: node, Session: 1}
	for p := uint32(0); p < 1000; p++ {
		o, ok := of[p]
		if !ok {
			continue
		}
		r.Partition, r.Attempt, r.Outcome = append(r.Partition, p), append(r.Attempt, 1), append(r.Outcome, byte(o))
		r.Failure, r.ExitCode = append(r.Failure, 0), append(r.ExitCode, -1)
		r.StartedMs, r.DurationMs, r.CpuMs, r.PeakMemoryKib = append(r.StartedMs, 0), append(r.DurationMs, 0), append(r.CpuMs, 0), append(r.PeakMemoryKib, 0)
		r.Digest = append(r.Digest, make([]byte, 32)...)
		if o == sheaf.OutcomeFailed {
			r.Text = append(r.Text, &wire.Text{Item: uint32(len(r.Partition) - 1), Message: "it broke"})
		}
	}
	c.do(&fsm.Command{Body: &fsm.Command_CommitPartitions{CommitPartitions: &fsm.CommitPartitions{Results: []*wire.Results{r}}}})
}

func outcomesOf(ok, failed []uint32) map[uint32]sheaf.Outcome {
	m := map[uint32]sheaf.Outcome{}
	for _, p := range ok {
		m[p] = sheaf.OutcomeSucceeded
	}
	for _, p := range failed {
		m[p] = sheaf.OutcomeFailed
	}
	return m
}

// trace is events as lines.
func trace(events []sheaf.Event) string {
	var b strings.Builder
	for _, e := range events {
		fmt.Fprintf(&b, "%d %s %s %s", e.Index, e.Topic, e.Type, e.Key)
		for _, part := range []struct{ name, text string }{{"node", string(e.Node)}, {"was", e.Was}, {"status", e.Status}, {"partitions", e.Partitions.String()}, {"reason", e.Reason}} {
			if part.text != "" && part.text != e.Key {
				fmt.Fprintf(&b, " %s=%s", part.name, part.text)
			}
		}
		if e.Count > 0 {
			fmt.Fprintf(&b, " count=%d", e.Count)
		}
		b.WriteString("\n")
	}
	return b.String()
}

// life is a run's and a node's, from the first to the last.
func life(c *cluster) {
	c.node("n1")
	c.node("n2")
	c.run("r", 6)
	c.place("r", "n1", 0, 4)
	c.place("r", "n2", 4, 2)
	c.results("r", "n1", outcomesOf([]uint32{0, 1, 3}, []uint32{2}))
	c.do(&fsm.Command{Body: &fsm.Command_SetNodeEligibility{SetNodeEligibility: &fsm.SetNodeEligibility{Node: "n1"}}})
	c.results("r", "n1", outcomesOf([]uint32{0}, nil)) // said before
	c.do(&fsm.Command{Body: &fsm.Command_NodeLost{NodeLost: &fsm.NodeLost{Node: "n2", Session: 1}}})
	c.do(&fsm.Command{Body: &fsm.Command_CancelRun{CancelRun: &fsm.CancelRun{Run: "r"}}})
	c.do(&fsm.Command{Body: &fsm.Command_CancelRun{CancelRun: &fsm.CancelRun{Run: "nope"}}}) // refused
	c.do(&fsm.Command{Body: &fsm.Command_RetryRun{RetryRun: &fsm.RetryRun{Run: "r"}}})
	c.do(&fsm.Command{Body: &fsm.Command_CancelRun{CancelRun: &fsm.CancelRun{Run: "r"}}})
	c.do(&fsm.Command{Body: &fsm.Command_DeleteRun{DeleteRun: &fsm.DeleteRun{Run: "r"}}})
}

func TestLife(t *testing.T) {
	c := newCluster(t)
	life(c)
	events, until, gap := c.log.Since(0, sheaf.Topics, 1000)
	want := strings.TrimLeft(`
1 node NodeRegistered n1 status=ready reason=host-n1
2 node NodeRegistered n2 status=ready reason=host-n2
3 run RunRegistered r status=pending count=6
4 run RunStatusChanged r was=pending status=running
4 partition PartitionsPlaced r node=n1 status=running partitions=0-3 count=4
5 partition PartitionsPlaced r node=n2 status=running partitions=4-5 count=2
6 partition PartitionsSucceeded r node=n1 status=running partitions=0-1,3 count=3
6 partition AttemptsFailed r node=n1 status=running partitions=2 reason=it broke count=1
7 node NodeIneligible n1 was=ready status=ready reason=host-n1
9 node NodeLost n2 was=ready status=down reason=host-n2
10 run RunStatusChanged r was=running status=cancelled
12 run RunRetried r was=cancelled status=running
13 run RunStatusChanged r was=running status=cancelled
14 run RunDeleted r status=cancelled
`, "\n")
	if got := trace(events); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	if until != 14 || gap != nil {
		t.Errorf("until %d, gap %v", until, gap)
	}
	if e := events[2]; e.Namespace != "default" || e.Job != "job" || e.Time.Unix() != 3 {
		t.Errorf("%+v", e)
	}
}

// TestEmptiedNode: what becomes of a node that is emptied, and of the outputs that lay there.
func TestEmptiedNode(t *testing.T) {
	c := newCluster(t)
	change := func(n *fsm.ChangeNode) {
		n.Node = "n1"
		c.do(&fsm.Command{Body: &fsm.Command_ChangeNode{ChangeNode: n}})
	}
	c.node("n1")
	c.node("n2")
	c.run("r", 2)
	c.place("r", "n1", 0, 2)
	c.results("r", "n1", outcomesOf([]uint32{0, 1}, nil))
	change(&fsm.ChangeNode{Change: &fsm.ChangeNode_Drain_{Drain: &fsm.ChangeNode_Drain{}}})
	change(&fsm.ChangeNode{Change: &fsm.ChangeNode_Drain_{Drain: &fsm.ChangeNode_Drain{}}}) // the same again
	change(&fsm.ChangeNode{Change: &fsm.ChangeNode_Drain_{Drain: &fsm.ChangeNode_Drain{DeadlineMs: 3_600_000}}})
	change(&fsm.ChangeNode{Change: &fsm.ChangeNode_EndDrain_{EndDrain: &fsm.ChangeNode_EndDrain{Cancel: true}}})
	change(&fsm.ChangeNode{Change: &fsm.ChangeNode_Drain_{Drain: &fsm.ChangeNode_Drain{}}})
	move := &wire.Executions{Run: "r", Generation: 1, First: []uint32{0}, Count: []uint32{2}, Attempt: []uint32{1}}
	c.do(&fsm.Command{Body: &fsm.Command_MoveOutputs{MoveOutputs: &fsm.MoveOutputs{From: "n1", To: "n2", Outputs: move}}})
	c.do(&fsm.Command{Body: &fsm.Command_MoveOutputs{MoveOutputs: &fsm.MoveOutputs{From: "n1", To: "n2", Outputs: move}}}) // moves none
	change(&fsm.ChangeNode{Change: &fsm.ChangeNode_EndDrain_{EndDrain: &fsm.ChangeNode_EndDrain{}}})
	change(&fsm.ChangeNode{Change: &fsm.ChangeNode_Tell_{Tell: &fsm.ChangeNode_Tell{Avoided: true, Reason: "too much fails there"}}})
	change(&fsm.ChangeNode{Change: &fsm.ChangeNode_Tell_{Tell: &fsm.ChangeNode_Tell{}}})
	events, _, _ := c.log.Since(5, sheaf.Topics, 1000)
	want := strings.TrimLeft(`
6 node NodeDraining n1 was=ready status=ready reason=host-n1
6 node NodeIneligible n1 was=ready status=ready reason=host-n1
8 node NodeDraining n1 was=ready status=ready reason=host-n1
9 node NodeDrainCancelled n1 was=ready status=ready reason=host-n1
9 node NodeEligible n1 was=ready status=ready reason=host-n1
10 node NodeDraining n1 was=ready status=ready reason=host-n1
10 node NodeIneligible n1 was=ready status=ready reason=host-n1
11 partition OutputsMoved r node=n2 status=succeeded partitions=0-1 reason=from node n1 count=2
13 node NodeDrained n1 was=ready status=ready reason=host-n1
14 node NodeAvoided n1 status=ready reason=too much fails there
15 node NodeRecovered n1 status=ready
`, "\n")
	if got := trace(events); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

// byRows are the kinds of commands of which the changed rows tell everything. What the others did
// to partitions is told by command.
var byRows = []string{
	"bootstrap", "register_node", "set_node_eligibility", "node_lost", "register_job", "put_chunk", "seal_manifest", "cancel_run", "retry_run", "seal_result",
	"set_image_digest", "advance_time", "delete_run", "reap_runs", "change_run", "write_secret", "change_node", "write_acl", "write_namespace", "note_conflict",
}

// byCommand are those that command has a case for.
var byCommand = []string{"apply_plan", "commit_partitions", "release", "invalidate_output", "node_prepare_failed", "set_operator", "move_outputs", "adopt_outputs"}

// TestEveryCommandIsThoughtOf fails when there is a kind of command of which nobody has said what it tells.
func TestEveryCommandIsThoughtOf(t *testing.T) {
	kinds := new(fsm.Command).ProtoReflect().Descriptor().Oneofs().ByName("body").Fields()
	for i := range kinds.Len() {
		name := string(kinds.Get(i).Name())
		if slices.Contains(byRows, name) == slices.Contains(byCommand, name) {
			t.Errorf("command %s is in none of byRows and byCommand, or in both: give command() a case, or say that the rows tell everything", name)
		}
	}
}

// TestServersAgree: whoever applies the same log has the same events.
func TestServersAgree(t *testing.T) {
	c, other := newCluster(t), newCluster(t)
	life(c)
	for i, b := range c.all {
		if _, err := other.m.Apply(uint64(i+1), b); err != nil {
			t.Fatal(err)
		}
	}
	a, _, _ := c.log.Since(0, sheaf.Topics, 1000)
	b, _, _ := other.log.Since(0, sheaf.Topics, 1000)
	if len(a) == 0 || !reflect.DeepEqual(a, b) {
		t.Errorf("one server has\n%sthe other\n%s", trace(a), trace(b))
	}
}

// TestManyRanges: a commit of scattered partitions names the first ranges and counts all.
func TestManyRanges(t *testing.T) {
	c := newCluster(t)
	c.node("n1")
	c.run("r", 1000)
	c.place("r", "n1", 0, 1000)
	var odd []uint32
	for p := uint32(1); p < 1000; p += 2 {
		odd = append(odd, p)
	}
	c.results("r", "n1", outcomesOf(odd, nil))
	events, _, _ := c.log.Since(3, []sheaf.Topic{sheaf.TopicPartition}, 1000)
	if e := events[0]; e.Count != 500 || !e.More || len(e.Partitions) != maxRanges || e.Partitions[1].First != 3 {
		t.Errorf("%+v", e)
	}
}

// TestSince: readers get whole entries in order, and are told what they missed.
func TestSince(t *testing.T) {
	l := New()
	for _, r := range l.rings {
		r.most = 10 * sizeOf(&sheaf.Event{})
	}
	for i := uint64(1); i <= 40; i++ {
		topic := sheaf.TopicPartition
		if i%10 == 0 {
			topic = sheaf.TopicNode
		}
		l.add(i, []sheaf.Event{{Index: i, Topic: topic}, {Index: i, Topic: topic}})
	}
	indexes := func(events []sheaf.Event) string {
		var all []uint64
		for _, e := range events {
			all = append(all, e.Index)
		}
		return fmt.Sprint(slices.Compact(all))
	}
	for _, c := range []struct {
		topics []sheaf.Topic
		after  uint64
		most   int
		want   string
		until  uint64
		gap    *Gap
	}{
		{[]sheaf.Topic{sheaf.TopicNode}, 0, 100, "[10 20 30 40]", 40, nil},
		{[]sheaf.Topic{sheaf.TopicNode}, 10, 3, "[20 30]", 30, nil},
		{[]sheaf.Topic{sheaf.TopicNode}, 40, 3, "[]", 40, nil},
		{[]sheaf.Topic{sheaf.TopicPartition}, 0, 100, "[35 36 37 38 39]", 40, &Gap{0, 34}},
		{[]sheaf.Topic{sheaf.TopicPartition}, 36, 100, "[37 38 39]", 40, nil},
		{[]sheaf.Topic{sheaf.TopicPartition, sheaf.TopicNode}, 34, 3, "[35 36]", 36, nil},
		{[]sheaf.Topic{sheaf.TopicPartition, sheaf.TopicNode}, 38, 100, "[39 40]", 40, nil},
		{[]sheaf.Topic{sheaf.TopicACL}, 3, 100, "[]", 40, nil},
		{sheaf.Topics, 99, 100, "[]", 99, nil},
	} {
		events, until, gap := l.Since(c.after, c.topics, c.most)
		if got := indexes(events); got != c.want || until != c.until || !reflect.DeepEqual(gap, c.gap) {
			t.Errorf("%v after %d: %s until %d, gap %v; want %s until %d, gap %v", c.topics, c.after, got, until, gap, c.want, c.until, c.gap)
		}
	}
	if r := l.rings[sheaf.TopicPartition]; r.bytes > r.most {
		t.Errorf("%d bytes are kept", r.bytes)
	}
}

// TestWatches: a reader wakes for its topics alone.
func TestWatches(t *testing.T) {
	c := newCluster(t)
	nodes, runs := c.log.Watch([]sheaf.Topic{sheaf.TopicNode}), c.log.Watch([]sheaf.Topic{sheaf.TopicRun})
	defer nodes.Close()
	c.run("r", 1)
	c.run("r2", 1)
	if len(nodes.C) != 0 || len(runs.C) != 1 {
		t.Errorf("%d and %d wakes", len(nodes.C), len(runs.C))
	}
	<-runs.C
	runs.Close()
	c.run("r3", 1)
	if len(runs.C) != 0 {
		t.Error("woken after it was closed")
	}
}

func TestRestoredIsAGap(t *testing.T) {
	c := newCluster(t)
	life(c)
	other := New()
	other.Restored(c.m.Store().Snapshot())
	if _, until, gap := other.Since(3, sheaf.Topics, 10); until != 14 || gap == nil || *gap != (Gap{3, 14}) {
		t.Errorf("until %d, gap %v", until, gap)
	}
}

func TestConfigured(t *testing.T) {
	l := New()
	l.Configured(1, []Server{{"a", "1:1", true}})
	l.Configured(2, []Server{{"a", "1:1", true}, {"b", "1:2", false}})
	l.Configured(3, []Server{{"a", "1:1", true}, {"b", "1:2", true}})
	l.Configured(4, []Server{{"b", "1:2", true}})
	events, _, _ := l.Since(0, sheaf.Topics, 10)
	want := "2 server ServerJoined b status=nonvoter reason=1:2\n3 server ServerRoleChanged b was=nonvoter status=voter reason=1:2\n4 server ServerLeft a was=voter reason=1:1\n"
	if got := trace(events); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

// TestEveryTableIsThoughtOf fails when a table of the state has no line that says what its changes tell.
func TestEveryTableIsThoughtOf(t *testing.T) {
	for _, name := range state.TableNames() {
		if _, ok := rows[name]; !ok {
			t.Errorf("changes of table %q make no event: add a line to rows in derive.go, nil if they should make none", name)
		}
	}
}
