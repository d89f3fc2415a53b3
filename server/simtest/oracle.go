package simtest

import (
	"encoding/hex"
	"encoding/json"
	"slices"

	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/server/fsm"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/server/state/table"
	"github.com/sheaf-run/agent/sheaf"
)

// oracle keeps its own book of what the log decided, by the rules as they are written, and
// compares it with the state after every command.
type oracle struct {
	w        *world
	runs     map[string]*shadowRun
	sessions map[string]uint64
	history  *history
	// succeeded are the runs that ever did; nodes says which partition of an ops run each node had.
	succeeded map[string]bool
	nodes     map[string]map[string]uint32
}

// shadowRun is a run in the book.
type shadowRun struct {
	parts                []shadow
	split, merge, reduce shadow
}

// shadow is a partition, a split, a merge or a reduce in the book.
type shadow struct {
	fence     uint32
	valid     []placed
	committed uint32          // attempt; 0 is none
	failed    map[uint32]bool // attempts whose failure is on record
	failures  int             // distinct ones since the last new beginning
	losses    int
	adopted   bool   // its output was taken over
	redone    uint16 // how often a committed output was given up
	commits   map[uint16]uint32
}

// placed is a valid attempt and where it is.
type placed struct {
	attempt uint32
	node    string
}

func newOracle(w *world) *oracle {
	return &oracle{succeeded: map[string]bool{}, nodes: map[string]map[string]uint32{}, w: w, runs: map[string]*shadowRun{}, sessions: map[string]uint64{}, history: newHistory(w.out.Seed)}
}

// shadow is what the book holds of an execution; nil for partitions that are not there.
func (o *oracle) shadow(run string, k wire.Kind, p uint32) *shadow {
	r := o.runs[run]
	switch {
	case r == nil:
		return nil
	case k == wire.Kind_KIND_SPLIT:
		return &r.split
	case k == wire.Kind_KIND_MERGE:
		return &r.merge
	case k == wire.Kind_KIND_REDUCE:
		return &r.reduce
	case int(p) >= len(r.parts):
		return nil
	}
	return &r.parts[p]
}

func (s *shadow) at(attempt uint32, node string) int {
	return slices.Index(s.valid, placed{attempt, node})
}

func (s *shadow) end(i int) { s.valid = slices.Delete(s.valid, i, i+1) }

// applied holds a command and its reply against the book.
func (o *oracle) applied(c *fsm.Command, r fsm.Reply, before, after *state.Snapshot) {
	if r.Err == nil {
		switch b := c.Body.(type) {
		case *fsm.Command_RegisterNode:
			o.registered(b.RegisterNode, r)
		case *fsm.Command_ApplyPlan:
			o.placed(b.ApplyPlan, r)
			o.scheduled(b.ApplyPlan, r, before)
		case *fsm.Command_CommitPartitions:
			for i, x := range b.CommitPartitions.Results {
				o.answered(x, r.Answers[i], after)
			}
			o.history.applied(b.CommitPartitions, r.Answers)
		case *fsm.Command_Release:
			o.released(b.Release, r)
		case *fsm.Command_NodePrepareFailed:
			for _, e := range r.Ended {
				o.ended(e, b.NodePrepareFailed.Node, false)
			}
		case *fsm.Command_NodeLost:
			o.nodeLost(b.NodeLost, before)
		case *fsm.Command_SealResult:
			o.sealed(b.SealResult.Request, r, before, after)
		case *fsm.Command_SealManifest:
			if r.Verdict == wire.Verdict_VERDICT_COMMITTED {
				s := o.shadow(b.SealManifest.Seal.Run, wire.Kind_KIND_SPLIT, 0)
				s.committed, s.valid = b.SealManifest.Seal.SplitAttempt, nil
			}
		case *fsm.Command_RetryRun:
			o.begunAgain(before.Run(sheaf.RunID(b.RetryRun.Run)), after.Run(sheaf.RunID(b.RetryRun.Run)))
			o.givenUp(sheaf.RunID(b.RetryRun.Run), before, after)
			o.history.reset(b.RetryRun.Run, before, after)
		case *fsm.Command_InvalidateOutput:
			run := b.InvalidateOutput.Outputs.Run
			o.begunAgain(before.Run(sheaf.RunID(run)), after.Run(sheaf.RunID(run)))
			o.givenUp(sheaf.RunID(run), before, after)
			o.history.reset(run, before, after)
			o.w.out.Invalid += r.Partitions
		case *fsm.Command_AdoptOutputs:
			o.adopted(b.AdoptOutputs, before, after)
		case *fsm.Command_DeleteRun:
			delete(o.runs, b.DeleteRun.Run)
			o.history.deleted(before.Run(sheaf.RunID(b.DeleteRun.Run)))
		}
	} else if before.Digest() != after.Digest() && before.TimeMs() == after.TimeMs() {
		o.w.fail("a refused command changed the state: %v", r.Err)
	}
	o.w.out.Let += len(r.Freed)
	for run := range after.Runs() {
		if run.Modified == after.Index() {
			o.compare(before, after, run)
		}
	}
}

func (o *oracle) registered(c *fsm.RegisterNode, r fsm.Reply) {
	var n sheaf.Node
	if err := json.Unmarshal(c.NodeJson, &n); err != nil {
		panic(err)
	}
	id := string(n.ID)
	if r.Session <= o.sessions[id] {
		o.w.fail("session %d of %s after %d", r.Session, id, o.sessions[id])
	}
	o.sessions[id] = r.Session
}

// placed: the fence rises with every placement; two attempts are valid at once
// only as a backup, on two nodes.
func (o *oracle) placed(c *fsm.ApplyPlan, r fsm.Reply) {
	for i, p := range c.Placements {
		e := r.Placed[i].Executions
		if e == nil {
			continue
		}
		if p.Session != o.sessions[p.Node] {
			o.w.fail("a placement for session %d of %s was accepted under %d", p.Session, p.Node, o.sessions[p.Node])
		}
		each(e, func(x execution) {
			s := o.shadow(x.run, x.kind, x.partition)
			if x.attempt <= s.fence {
				o.w.fail("%v is placed after attempt %d", x, s.fence)
			}
			if len(s.valid) > 0 && !(p.Backup && len(s.valid) == 1 && s.valid[0].node != p.Node) {
				o.w.fail("%v is placed on %s beside %v", x, p.Node, s.valid)
			}
			if s.adopted {
				o.w.fail("%v is placed though its output was taken over", x)
			}
			if s.committed != 0 && x.kind == wire.Kind_KIND_PARTITION {
				o.w.fail("%v is placed though attempt %d is committed", x, s.committed)
			}
			s.fence = x.attempt
			s.valid = append(s.valid, placed{x.attempt, p.Node})
			o.history.placed(x)
		})
	}
}

// answered: the verdict on each item is the one that the protocol says.
func (o *oracle) answered(x *wire.Results, a *wire.Answers, after *state.Snapshot) {
	run := after.Run(sheaf.RunID(x.Run))
	fresh := o.sessions[x.Node] == x.Session
	for i, p := range x.Partition {
		v := wire.Verdict(a.Verdict[i])
		s := o.shadow(x.Run, x.Kind, p)
		if s == nil {
			if v == wire.Verdict_VERDICT_COMMITTED {
				o.w.fail("partition %d of %s is committed, and is not there", p, x.Run)
			}
			continue
		}
		at := s.at(x.Attempt[i], x.Node)
		outcome := sheaf.Outcome(x.Outcome[i])
		wrong := ""
		switch v {
		case wire.Verdict_VERDICT_ALREADY:
			if s.committed != x.Attempt[i] {
				wrong = "is not committed"
			}
		case wire.Verdict_VERDICT_COMMITTED:
			if at < 0 || !fresh || s.committed != 0 || x.Kind != wire.Kind_KIND_PARTITION && x.Kind != wire.Kind_KIND_REDUCE {
				wrong = "may not commit"
				break
			}
			if other, ok := s.commits[s.redone]; ok {
				o.w.fail("partition %d of %s is committed twice in one generation, by attempts %d and %d", p, x.Run, other, x.Attempt[i])
			}
			if s.commits == nil {
				s.commits = map[uint16]uint32{}
			}
			s.commits[s.redone] = x.Attempt[i]
			s.committed, s.valid = x.Attempt[i], nil
			o.w.out.Commits++
		case wire.Verdict_VERDICT_RESEND:
			if at < 0 || fresh {
				wrong = "is not of an old session alone"
			}
		case wire.Verdict_VERDICT_SUPERSEDED:
			if at >= 0 || s.committed == x.Attempt[i] {
				wrong = "is valid"
			}
		case wire.Verdict_VERDICT_CANCELLED:
			if s.committed == x.Attempt[i] || !run.Masked() {
				wrong = "is not of a stopped run"
			}
			s.valid = nil
		case wire.Verdict_VERDICT_RECORDED:
			wrong = o.recorded(s, x, i, at, outcome, fresh)
		default:
			wrong = "must have a verdict"
		}
		if wrong != "" {
			o.w.fail("%v on attempt %d at partition %d of %s (%v) by %s, session %d: it %s; valid %v, committed %d", v, x.Attempt[i], p, x.Run, x.Kind, x.Node, x.Session, wrong, s.valid, s.committed)
		}
	}
}

// recorded: a failure counts once, however often it is reported.
func (o *oracle) recorded(s *shadow, x *wire.Results, i, at int, outcome sheaf.Outcome, fresh bool) string {
	attempt := x.Attempt[i]
	switch {
	case at < 0 && outcome == sheaf.OutcomeFailed && s.failed[attempt]:
	case at < 0 || !fresh:
		return "is not valid"
	case outcome == sheaf.OutcomeLost:
		s.end(at)
		s.losses++
	case sheaf.FailureKind(x.Failure[i]) == sheaf.FailPrepare && x.Kind == wire.Kind_KIND_PARTITION:
		s.end(at)
	default:
		s.end(at)
		if s.failed == nil {
			s.failed = map[uint32]bool{}
		}
		s.failed[attempt] = true
		s.failures++
	}
	return ""
}

func (o *oracle) released(c *fsm.Release, r fsm.Reply) {
	gone := map[execution]bool{}
	for _, e := range c.Lost {
		each(e, func(x execution) { gone[x] = true })
	}
	for _, e := range r.Ended {
		lost := false
		each(e, func(x execution) { lost = lost || gone[x] })
		o.ended(e, c.Node, lost)
	}
}

func (o *oracle) ended(e *wire.Executions, node string, lost bool) {
	each(e, func(x execution) {
		s := o.shadow(x.run, x.kind, x.partition)
		at := s.at(x.attempt, node)
		if at < 0 {
			o.w.fail("%v ended on %s, where it was not valid", x, node)
		}
		s.end(at)
		if lost {
			s.losses++
			o.w.out.Losses++
		}
		o.history.ended(x)
	})
}

func (o *oracle) nodeLost(c *fsm.NodeLost, before *state.Snapshot) {
	n := before.Node(sheaf.NodeID(c.Node))
	if n.Session != c.Session || n.Status == sheaf.NodeDown {
		return
	}
	for run := range before.Runs() {
		r := o.runs[string(run.ID)]
		end := func(k wire.Kind, p int, s *shadow) {
			for i := len(s.valid) - 1; i >= 0; i-- {
				if s.valid[i].node == c.Node {
					o.history.ended(execution{string(run.ID), k, uint32(p), s.valid[i].attempt})
					s.end(i)
					s.losses++
				}
			}
		}
		end(wire.Kind_KIND_SPLIT, 0, &r.split)
		end(wire.Kind_KIND_MERGE, 0, &r.merge)
		end(wire.Kind_KIND_REDUCE, len(r.parts), &r.reduce)
		for p := range r.parts {
			end(wire.Kind_KIND_PARTITION, p, &r.parts[p])
		}
	}
}

// sealed: the result holds every committed record once, and nothing else.
func (o *oracle) sealed(k *wire.SealResultRequest, r fsm.Reply, before, after *state.Snapshot) {
	run := after.Run(sheaf.RunID(k.Run))
	if r.Verdict != wire.Verdict_VERDICT_COMMITTED {
		return
	}
	s := o.shadow(k.Run, wire.Kind_KIND_MERGE, 0)
	if s.at(k.MergeAttempt, k.Node) < 0 || o.sessions[k.Node] != k.Session {
		o.w.fail("merge attempt %d of %s sealed, where %v is valid", k.MergeAttempt, k.Run, s.valid)
	}
	if k.Published {
		if was := before.Run(run.ID); !was.Result.Publishing || was.Result.Digest != table.Digest(k.Digest) {
			o.w.fail("what %s is said to have published is not what is sealed: %+v", k.Run, was.Result)
		}
		s.committed, s.valid = k.MergeAttempt, nil
		return
	}
	if ledger(after, run) != [32]byte(k.Digest) {
		o.w.fail("the merged result of %s is not what is committed", k.Run)
	}
	o.w.out.Merges++
	if run.Result.Publishing { // the attempt goes on
		o.w.bucket.sealed[attemptOf(k.Run, k.MergeAttempt)] = hex.EncodeToString(k.Digest)
		return
	}
	s.committed, s.valid = k.MergeAttempt, nil
}
