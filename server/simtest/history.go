package simtest

import (
	"math"

	"github.com/anishathalye/porcupine"

	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/server/fsm"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/sheaf"
)

// sampleEvery is of how many seeds one keeps its histories.
const sampleEvery = 8

// history is what happened to each partition, as clients and leaders saw it: from when
// a result was sent to when its answer came.
type history struct {
	on    bool
	clock int64
	sends map[*wire.Results]int64
	last  map[*wire.Results][]*porcupine.Operation // of the newest application
	ops   map[execution][]*porcupine.Operation     // by run and partition
}

// step is what an operation asks of a partition.
type step struct {
	what    string // place, end, mask, reset, delete, commit
	attempt uint32
	outcome sheaf.Outcome
	prepare bool
	redo    bool // reset: a committed output is given up
	retry   bool // reset: by a retry, which takes the mask off
}

func newHistory(seed uint64) *history {
	return &history{on: seed%sampleEvery == 0, sends: map[*wire.Results]int64{}, last: map[*wire.Results][]*porcupine.Operation{}, ops: map[execution][]*porcupine.Operation{}}
}

func (h *history) tick() int64 {
	h.clock++
	return h.clock
}

func (h *history) sent(x *wire.Results) {
	if h.on && x.Kind == wire.Kind_KIND_PARTITION {
		h.sends[x] = h.tick()
	}
}

// at records a step that takes no time.
func (h *history) at(run string, p uint32, s step) {
	if h.on {
		t := h.tick()
		k := execution{run: run, partition: p}
		h.ops[k] = append(h.ops[k], &porcupine.Operation{Input: s, Call: t, Output: wire.Verdict_VERDICT_UNKNOWN, Return: t})
	}
}

func (h *history) placed(x execution) {
	if x.kind == wire.Kind_KIND_PARTITION {
		h.at(x.run, x.partition, step{what: "place", attempt: x.attempt})
	}
}

func (h *history) ended(x execution) {
	if x.kind == wire.Kind_KIND_PARTITION {
		h.at(x.run, x.partition, step{what: "end", attempt: x.attempt})
	}
}

// applied records verdicts. Until the client has seen them, they may have
// been given at any time since the result was sent.
func (h *history) applied(c *fsm.CommitPartitions, answers []*wire.Answers) {
	if !h.on {
		return
	}
	for i, x := range c.Results {
		if x.Kind != wire.Kind_KIND_PARTITION {
			continue
		}
		h.last[x] = nil
		for k, p := range x.Partition {
			op := &porcupine.Operation{
				Input: step{what: "commit", attempt: x.Attempt[k], outcome: sheaf.Outcome(x.Outcome[k]), prepare: sheaf.FailureKind(x.Failure[k]) == sheaf.FailPrepare},
				Call:  h.sends[x], Output: wire.Verdict(answers[i].Verdict[k]), Return: math.MaxInt64,
			}
			h.last[x] = append(h.last[x], op)
			key := execution{run: x.Run, partition: p}
			h.ops[key] = append(h.ops[key], op)
		}
	}
}

// seen gives a function to call when the client has the answers of the newest application.
func (h *history) seen(x *wire.Results) func() {
	ops := h.last[x]
	return func() {
		for _, op := range ops {
			op.Return = min(op.Return, h.tick())
		}
	}
}

// masked records that a run's stop has ended all that was valid.
func (h *history) masked(run, was *state.Run) {
	if !h.on || run.Partitions == nil || !run.Masked() || was != nil && was.Masked() {
		return
	}
	for i := range run.Partitions.Len() {
		h.at(string(run.ID), uint32(i), step{what: "mask"})
	}
}

// deleted records that a run is gone.
func (h *history) deleted(run *state.Run) {
	if run == nil || run.Partitions == nil {
		return
	}
	for i := range run.Partitions.Len() {
		h.at(string(run.ID), uint32(i), step{what: "delete"})
	}
}

// reset records the partitions that begin again.
func (h *history) reset(id string, before, after *state.Snapshot) {
	was, run := before.Run(sheaf.RunID(id)), after.Run(sheaf.RunID(id))
	if !h.on || was.Partitions == nil {
		return
	}
	for i := range run.Partitions.Len() {
		old, is := was.Partitions.Row(i), run.Partitions.Row(i)
		redo := old.State == sheaf.PartitionSucceeded && is.Generation != old.Generation // one that was taken over has no history
		if redo || was.Masked() {
			h.at(id, uint32(i), step{what: "reset", redo: redo, retry: run.Generation != was.Generation})
		}
	}
}

// register is the state of one partition in the sequential model.
type register struct {
	valid     [2]uint32 // attempts, the lower first; 0 is none
	committed uint32
	masked    bool
	deleted   bool
}

func (r *register) drop(attempt uint32) bool {
	switch attempt {
	case r.valid[0]:
		r.valid = [2]uint32{r.valid[1], 0}
	case r.valid[1]:
		r.valid[1] = 0
	default:
		return false
	}
	return true
}

// model is a partition, one step at a time: the rule of commits and nothing else.
var model = porcupine.Model{
	Init: func() any { return register{} },
	Step: func(state, input, output any) (bool, any) {
		r, in, v := state.(register), input.(step), output.(wire.Verdict)
		valid := in.attempt != 0 && !r.masked && (r.valid[0] == in.attempt || r.valid[1] == in.attempt)
		switch in.what {
		case "place":
			if r.committed != 0 || r.masked || r.valid[1] != 0 || in.attempt <= r.valid[0] {
				return false, r
			}
			if r.valid[0] == 0 {
				r.valid[0] = in.attempt
			} else {
				r.valid[1] = in.attempt
			}
			return true, r
		case "end":
			return r.drop(in.attempt), r
		case "delete":
			return true, register{masked: true, deleted: true}
		case "mask":
			r.masked, r.valid = true, [2]uint32{}
			return true, r
		case "reset":
			r.masked = r.masked && !in.retry
			r.valid = [2]uint32{}
			if in.redo {
				ok := r.committed != 0
				r.committed = 0
				return ok, r
			}
			return true, r
		}
		if r.deleted {
			return v == wire.Verdict_VERDICT_SUPERSEDED, r
		}
		switch v {
		case wire.Verdict_VERDICT_ALREADY:
			return r.committed == in.attempt, r
		case wire.Verdict_VERDICT_COMMITTED:
			ok := valid && r.committed == 0
			r.committed, r.valid = in.attempt, [2]uint32{}
			return ok, r
		case wire.Verdict_VERDICT_RESEND:
			return valid, r
		case wire.Verdict_VERDICT_RECORDED:
			r.drop(in.attempt)
			return in.outcome != sheaf.OutcomeSucceeded && !r.masked, r
		case wire.Verdict_VERDICT_CANCELLED:
			return r.masked && r.committed != in.attempt, r
		case wire.Verdict_VERDICT_SUPERSEDED:
			return !valid && r.committed != in.attempt, r
		}
		return false, r
	},
}

// Linearizable reports whether every partition's history could have happened
// one step at a time; if not, it names one that could not. ok is true for
// seeds that keep no histories.
func (h *history) Linearizable() (partition string, ok bool) {
	for k, ops := range h.ops {
		all := make([]porcupine.Operation, len(ops))
		for i, op := range ops {
			all[i] = *op
		}
		if !porcupine.CheckOperations(model, all) {
			return sheafName(k), false
		}
	}
	return "", true
}

func sheafName(k execution) string {
	return string(sheaf.NewExecutionID(sheaf.RunID(k.run), int(k.partition), 0))
}
