package simtest

import (
	"crypto/sha256"
	"fmt"

	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/server/fsm"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/server/state/table"
	"github.com/sheaf-run/agent/sheaf"
)

// chunksOf is a run's manifest as its split attempt makes it.
func chunksOf(run string, attempt uint32, partitions int) []*wire.ManifestChunk {
	const each = 7
	var all []*wire.ManifestChunk
	for first := 0; first < partitions; first += each {
		n := min(each, partitions-first)
		all = append(all, &wire.ManifestChunk{Run: run, SplitAttempt: attempt, Sequence: uint32(len(all)), First: uint32(first), Count: uint32(n),
			Data: fmt.Appendf(nil, "%s/%d: %d-%d", run, attempt, first, first+n-1)})
	}
	return all
}

// split streams the manifest and seals it. What is not answered is sent again from
// the contiguous mark.
func (c *client) split(x execution) {
	if !c.holds(x) {
		return
	}
	w := c.w
	f := w.fate("split %s %d", x.run, x.attempt)
	if f%6 == 0 {
		c.end(x, result{execution: x, outcome: sheaf.OutcomeFailed, kind: sheaf.FailDriver, code: -1})
		return
	}
	chunks := chunksOf(x.run, x.attempt, w.user.partitions(x.run))
	next := 0
	var push func()
	push = func() {
		if !c.holds(x) {
			return
		}
		c.later(w.between(200, 600), push) // until it is sealed or given up
		cmd := &fsm.Command{}
		if next < len(chunks) {
			k := *chunkFrom(chunks[next], c)
			cmd.Body = &fsm.Command_PutChunk{PutChunk: &fsm.PutChunk{Chunk: &k}}
		} else {
			cmd.Body = &fsm.Command_SealManifest{SealManifest: &fsm.SealManifest{Seal: sealOf(x, chunks, c)}}
		}
		w.call(c, func(l *leader) {
			l.propose(cmd, func(r fsm.Reply) {
				w.back(c, func() {
					switch {
					case !c.holds(x):
					case r.Sealed:
						c.end(x, result{execution: x, outcome: sheaf.OutcomeSucceeded, code: -1})
					case r.Err != nil && r.Verdict == wire.Verdict_VERDICT_UNKNOWN:
						w.fail("the split of %s is refused: %v", x.run, r.Err)
					case r.Err != nil && r.Verdict != wire.Verdict_VERDICT_RESEND:
						c.running = without(c.running, x)
						c.begin()
					case r.Err == nil && int(r.Contiguous) > next:
						next = int(r.Contiguous)
						push()
					}
				})
			})
		})
	}
	push()
}

func chunkFrom(k *wire.ManifestChunk, c *client) *wire.ManifestChunk {
	return &wire.ManifestChunk{Run: k.Run, SplitAttempt: k.SplitAttempt, Sequence: k.Sequence, First: k.First, Count: k.Count, Data: k.Data, Node: string(c.id), Session: c.session}
}

func sealOf(x execution, chunks []*wire.ManifestChunk, c *client) *wire.ManifestSeal {
	s := &wire.ManifestSeal{Run: x.run, SplitAttempt: x.attempt, Chunks: uint32(len(chunks)), Node: string(c.id), Session: c.session}
	h := sha256.New()
	for _, k := range chunks {
		sum := sha256.Sum256(k.Data)
		_, _ = h.Write(sum[:])
		s.Partitions += k.Count
	}
	s.Root = h.Sum(nil)
	return s
}

// merge reads what is committed, looks whether it is there, and seals the ledger of it.
func (c *client) merge(x execution) {
	if !c.holds(x) {
		return
	}
	w := c.w
	c.later(w.between(200, 600), func() { c.merge(x) }) // until it is sealed or given up
	w.call(c, func(l *leader) {
		snap := w.snap()
		r := snap.Run(sheaf.RunID(x.run))
		n := snap.Node(c.id)
		if r == nil || n == nil || !snap.Valid(r, x.kind, 0, x.attempt, n.Number) {
			w.back(c, func() {
				c.running = without(c.running, x)
				c.begin()
			})
			return
		}
		if c.publishing[x] {
			return
		}
		if r.Result.Publishing {
			w.back(c, func() { c.putManifest(x, r.Generation, r.Result.Attempt, r.Result.Digest) })
			return
		}
		gone := &wire.Executions{Run: x.run, Generation: r.Generation}
		for _, part := range r.Committed(0, 0) {
			for i := part.First; i <= part.Last; i++ {
				made, holder := w.origin(snap, r, i)
				if holder == nil || !holder.alive || holder.cutOff {
					return // cannot be asked now
				}
				if !holder.outputs[made] {
					attempt := made.attempt
					if r.Row(i).State == sheaf.PartitionReused {
						attempt = 0
					}
					state.AppendExecution(gone, i, attempt)
				}
			}
		}
		if e := r.Reduce; e.Done && e.Output != (table.Digest{}) {
			holder := w.client(snap.NodeByNumber(e.Node).ID)
			if !holder.alive || holder.cutOff {
				return
			}
			if !holder.outputs[execution{x.run, wire.Kind_KIND_REDUCE, uint32(r.Partitions.Len()), e.Attempt}] {
				state.AppendExecution(gone, r.Partitions.Len(), e.Attempt)
			}
		}
		if len(gone.First) > 0 { // a node says that it lacks them
			l.propose(&fsm.Command{Body: &fsm.Command_InvalidateOutput{InvalidateOutput: &fsm.InvalidateOutput{Outputs: gone, Reason: "gone"}}}, nil)
			return
		}
		digest := ledger(snap, r)
		if x := snap.Unchanged(r); x != nil { // which the oracle holds against what is committed
			digest = x.Result.Digest
			w.out.Unchanged++
		}
		if r.Publishes() {
			w.back(c, func() { c.publish(x, r, digest) })
			return
		}
		req := &wire.SealResultRequest{Run: x.run, MergeAttempt: x.attempt, Digest: digest[:], Node: string(c.id), Session: c.session}
		w.after(w.between(1, 200), func() {
			w.call(c, func(l *leader) {
				l.propose(&fsm.Command{Body: &fsm.Command_SealResult{SealResult: &fsm.SealResult{Request: req}}}, func(rep fsm.Reply) {
					w.back(c, func() {
						if rep.Verdict == wire.Verdict_VERDICT_RESEND || !c.holds(x) {
							return
						}
						c.end(x, result{execution: x, outcome: sheaf.OutcomeSucceeded, code: -1})
					})
				})
			})
		})
	})
}

// ledger is a digest of every committed record, in order.
func ledger(snap *state.Snapshot, r *state.Run) [32]byte {
	h := sha256.New()
	for _, part := range r.Committed(0, 0) {
		for i := part.First; i <= part.Last; i++ {
			m, ok := snap.Origin(r, i)
			_, _ = fmt.Fprintf(h, "%d %v %d %x\n", i, ok, m.Row.Attempt, m.Row.Output)
		}
	}
	if r.Reduce.Done {
		_, _ = fmt.Fprintf(h, "reduce %x\n", r.Reduce.Output)
	}
	return [32]byte(h.Sum(nil))
}

func (c *client) holds(x execution) bool {
	for _, y := range c.running {
		if x == y {
			return true
		}
	}
	return false
}

func (w *world) client(id sheaf.NodeID) *client {
	for _, c := range w.clients {
		if c.id == id {
			return c
		}
	}
	panic("no client " + id)
}
