package httpapi

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"

	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/server/fsm"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/sheaf"
)

// ran is a run of n partitions on two nodes: each took 10 ms, one behind the other, the odd ones on b. The last failed.
func ran(t *testing.T, n int) (*state.Snapshot, *state.Run) {
	t.Helper()
	m := fsm.New(state.New(new(state.MemoryChunks)))
	index := uint64(0)
	apply := func(c *fsm.Command) {
		index++
		c.TimeMs = 1
		b, err := fsm.Encode(c)
		if err != nil {
			t.Fatal(err)
		}
		if reply, err := m.Apply(index, b); err != nil || reply.Err != nil {
			t.Fatal(err, reply.Err)
		}
	}
	for _, id := range []string{"a", "b"} {
		b, err := json.Marshal(sheaf.Node{ID: sheaf.NodeID(id), Name: "host-" + id})
		if err != nil {
			t.Fatal(err)
		}
		apply(&fsm.Command{Body: &fsm.Command_RegisterNode{RegisterNode: &fsm.RegisterNode{NodeJson: b}}})
	}
	job, err := json.Marshal(sheaf.Job{Name: "job", Namespace: "default", Count: n + 1, Retry: sheaf.Retry{Attempts: 1}})
	if err != nil {
		t.Fatal(err)
	}
	apply(&fsm.Command{Body: &fsm.Command_RegisterJob{RegisterJob: &fsm.RegisterJob{Run: "r", JobJson: job}}})
	for i := range n + 1 { // one more, that does not end
		node := []string{"a", "b"}[i%2]
		apply(&fsm.Command{Body: &fsm.Command_ApplyPlan{ApplyPlan: &fsm.ApplyPlan{Placements: []*fsm.Placement{{Run: "r", Node: node, Session: 1, First: []uint32{uint32(i)}, Count: []uint32{1}}}}}})
		if i == n {
			break
		}
		outcome := sheaf.OutcomeSucceeded
		if i == n-1 {
			outcome = sheaf.OutcomeFailed
		}
		apply(&fsm.Command{Body: &fsm.Command_CommitPartitions{CommitPartitions: &fsm.CommitPartitions{Results: []*wire.Results{{
			Run: "r", Generation: 1, Node: node, Session: 1, Partition: []uint32{uint32(i)}, Attempt: []uint32{1}, Outcome: []byte{byte(outcome)},
			Failure: []byte{0}, ExitCode: []int32{0}, StartedMs: []int64{int64(1000 + 10*i)}, DurationMs: []uint32{10}, CpuMs: []uint32{0}, PeakMemoryKib: []uint32{0}, Digest: make([]byte, 32),
		}}}}})
	}
	s := m.Store().Snapshot()
	return s, s.Run("r")
}

func TestTimeline(t *testing.T) {
	s, r := ran(t, 5)
	got := timelineOf(s, r, 10)
	if got.Start.UnixMilli() != 1000 || got.End.UnixMilli() != 1050 || got.BucketMs != 0 || len(got.Lanes) != 2 {
		t.Fatalf("%+v", got)
	}
	a, b := got.Lanes[0], got.Lanes[1]
	if want := "[{0 0 10 false} {2 20 10 false} {4 40 10 true}]"; fmt.Sprint(a.Tries) != want || a.Name != "host-a" || a.Failed != 1 || a.Now != 0 {
		t.Errorf("%+v, want %s", a, want)
	}
	if b.Ended != 2 || b.Now != 1 {
		t.Errorf("%+v", b)
	}

	got = timelineOf(s, r, 4)
	a, b = got.Lanes[0], got.Lanes[1]
	if got.BucketMs != 1 || len(a.Busy) != timelineParts || a.Tries != nil || a.Busy[5] != 1 || a.Busy[15] != 0 || b.Busy[15] != 1 || slices.Max(a.Busy) != 1 {
		t.Errorf("%+v", got)
	}
	if s, r = ran(t, 0); timelineOf(s, r, 4).Start != nil {
		t.Error("nothing has ended")
	}
}

// TestLongTimeline: stretches hold everything, up to the last moment.
func TestLongTimeline(t *testing.T) {
	s, r := ran(t, 1000)
	got := timelineOf(s, r, 100)
	for _, l := range got.Lanes {
		if l.Ended != 500 || slices.Max(l.Busy) < 2 {
			t.Errorf("%+v", l)
		}
	}
	if span := got.End.Sub(*got.Start).Milliseconds(); got.BucketMs*timelineParts < span || got.Others != 0 {
		t.Errorf("%d ms a stretch do not cover %d ms", got.BucketMs, span)
	}
}
