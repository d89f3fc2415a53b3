// Package planner makes plans happen. It is the one place through which placements
// enter the log: plans of all evaluators are checked against the newest state, folded into
// few commands while the one before is being written, applied in order, and what was
// placed is handed on to be sent. The state machine checks each placement once more.
package planner

import (
	"context"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/server/fsm"
	"github.com/sheaf-run/agent/server/scheduler"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/sheaf"
)

const (
	// queued is how many plans wait to be folded; evaluators wait beyond.
	queued = 64
	// maxRanges bounds the ranges of one placement in a command, so that pieces
	// fill commands well: at most about 9 bytes each.
	maxRanges = 2048
	// maxBytes of placements go into one command; the rest of fsm.MaxCommand is for its frame.
	maxBytes = fsm.MaxCommand - 1024
	// maxPartitions bounds how long the state machine is busy with one command: a few milliseconds.
	maxPartitions = 65_536
)

// Applier appends a command to the log and gives the state machine's reply.
type Applier interface {
	Apply(ctx context.Context, c *fsm.Command) (fsm.Reply, error)
}

// Plan is what one evaluation proposes for one run.
type Plan struct {
	Run        sheaf.RunID
	Kind       wire.Kind
	Placements []scheduler.Placement
	Backup     bool // the partitions are assigned elsewhere and get a second attempt
}

// Result is what became of a plan.
type Result struct {
	Placed  int    // executions
	Refused int    // partitions that no longer could be placed
	Reason  string // why, for the first of them
}

// Planner serialises plans. Submit may be called concurrently while Run runs.
type Planner struct {
	log      Applier
	snapshot func() *state.Snapshot
	placed   func(node sheaf.NodeID, e *wire.Executions)
	plans    chan *pending
}

// New makes a planner that applies to log. placed is called from Run, in the order
// of the log, for all that was placed.
func New(log Applier, snapshot func() *state.Snapshot, placed func(sheaf.NodeID, *wire.Executions)) *Planner {
	return &Planner{log: log, snapshot: snapshot, placed: placed, plans: make(chan *pending, queued)}
}

// pending is a plan on its way.
type pending struct {
	plan   Plan
	left   int // pieces not answered yet
	result Result
	err    error
	done   chan struct{}
}

// piece is a placement that fits into a command.
type piece struct {
	of         *pending
	placement  *fsm.Placement
	partitions int
	bytes      int
}

// Submit waits until a plan is applied. An error means that none or part of it was.
func (p *Planner) Submit(ctx context.Context, plan Plan) (Result, error) {
	if len(plan.Placements) == 0 {
		return Result{}, nil
	}
	w := &pending{plan: plan, done: make(chan struct{})}
	select {
	case p.plans <- w:
	case <-ctx.Done():
		return Result{}, ctx.Err()
	}
	select {
	case <-w.done:
		return w.result, w.err
	case <-ctx.Done():
		return Result{}, ctx.Err()
	}
}

// Run applies plans until ctx ends.
func (p *Planner) Run(ctx context.Context) error {
	var pieces []piece
	for {
		if len(pieces) == 0 {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case w := <-p.plans:
				pieces = p.cut(pieces, w)
			}
		}
		for more := true; more && len(pieces) < queued; {
			select {
			case w := <-p.plans:
				pieces = p.cut(pieces, w)
			default:
				more = false
			}
		}
		if len(pieces) > 0 {
			pieces = p.apply(ctx, pieces)
		}
	}
}

// apply puts as many pieces as fit into one command and gives back the others.
func (p *Planner) apply(ctx context.Context, pieces []piece) []piece {
	n, bytes, partitions := 0, 0, 0
	command := &fsm.ApplyPlan{}
	for n < len(pieces) && (n == 0 || bytes+pieces[n].bytes <= maxBytes && partitions+pieces[n].partitions <= maxPartitions) {
		bytes += pieces[n].bytes
		partitions += pieces[n].partitions
		command.Placements = append(command.Placements, pieces[n].placement)
		n++
	}
	reply, err := p.log.Apply(ctx, &fsm.Command{Body: &fsm.Command_ApplyPlan{ApplyPlan: command}})
	if err == nil && reply.Err != nil {
		err = reply.Err
	}
	if err == nil && len(reply.Placed) != n {
		panic(fmt.Sprintf("planner: %d placements were applied and %d answered", n, len(reply.Placed)))
	}
	for i, x := range pieces[:n] {
		if err != nil {
			x.of.err = fmt.Errorf("apply the plan: %w", err)
		} else {
			x.of.note(reply.Placed[i])
			if e := reply.Placed[i].Executions; e != nil {
				p.placed(sheaf.NodeID(x.placement.Node), e)
			}
		}
		x.of.answer()
	}
	return pieces[n:]
}

func (w *pending) note(placed fsm.Placed) {
	w.result.Refused += placed.Refused
	if w.result.Reason == "" {
		w.result.Reason = placed.Reason
	}
	if e := placed.Executions; e != nil {
		for _, n := range e.Count {
			w.result.Placed += int(n)
		}
	}
}

// answer counts a piece of the plan as dealt with.
func (w *pending) answer() {
	if w.left--; w.left <= 0 {
		close(w.done)
	}
}

// cut appends the pieces of a plan, without placements that the newest state rules out.
func (p *Planner) cut(pieces []piece, w *pending) []piece {
	snap := p.snapshot()
	before := len(pieces)
	run := snap.Run(w.plan.Run)
	for _, x := range w.plan.Placements {
		why := ""
		node := snap.Node(x.Node)
		switch {
		case run == nil || run.Status.Terminal() || run.Masked() && w.plan.Kind != wire.Kind_KIND_MERGE:
			why = "the run is over"
		case node == nil || !node.Placeable() || node.Session != x.Session:
			why = fmt.Sprintf("node %s takes no placements any more", x.Node)
		}
		if why != "" {
			w.result.Refused += max(1, x.Partitions.Len())
			w.result.Reason = why
			continue
		}
		if w.plan.Kind != wire.Kind_KIND_PARTITION {
			pieces = append(pieces, w.piece(x, nil))
			continue
		}
		for ranges := range slices.Chunk(narrow(x.Partitions), maxRanges) {
			pieces = append(pieces, w.piece(x, ranges))
		}
	}
	if w.left = len(pieces) - before; w.left == 0 {
		close(w.done)
	}
	return pieces
}

// narrow cuts ranges that are too long for one command.
func narrow(ranges sheaf.Ranges) []sheaf.Range {
	var out []sheaf.Range
	for _, r := range ranges {
		for r.Last-r.First >= maxPartitions {
			out = append(out, sheaf.Range{First: r.First, Last: r.First + maxPartitions - 1})
			r.First += maxPartitions
		}
		out = append(out, r)
	}
	return out
}

func (w *pending) piece(x scheduler.Placement, ranges []sheaf.Range) piece {
	f := &fsm.Placement{Run: string(w.plan.Run), Kind: w.plan.Kind, Node: string(x.Node), Session: x.Session, Backup: w.plan.Backup}
	n := 0
	for _, r := range ranges {
		f.First = append(f.First, uint32(r.First))
		f.Count = append(f.Count, uint32(r.Last-r.First+1))
		n += r.Last - r.First + 1
	}
	return piece{of: w, placement: f, partitions: max(1, n), bytes: proto.Size(f) + 8}
}
