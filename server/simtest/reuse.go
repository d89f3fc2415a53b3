package simtest

import (
	"slices"

	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/server/fsm"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/sheaf"
)

// alike reports whether all runs of a job read the same in this seed, so that whole results are taken over.
func (w *world) alike() bool { return w.out.Seed%6 == 0 }

// mostAlike is how many partitions such runs have at most: few, so that some succeed with all of them.
const mostAlike = 6

// content names what a partition of a run reads: runs of a job share most of it, at other places.
func (w *world) content(run sheaf.RunID, partition int) [2]uint64 {
	if w.alike() {
		return [2]uint64{uint64(partition)}
	}
	at := uint64(partition) + w.fate("shift %s", run)%3
	return [2]uint64{at, w.fate("version %s %d", run, at) % 5 / 4}
}

// compareRuns takes over for runs that were just split what earlier ones made. Now and then
// it asks for what is not there, says it twice, or in pieces.
func (l *leader) compareRuns() {
	w, snap := l.w, l.w.snap()
	for r := range snap.LiveRuns() {
		if !r.Reuse.Waits || w.chance(2) {
			continue
		}
		c := &fsm.AdoptOutputs{Run: string(r.ID), SplitAttempt: r.Manifest.Attempt, Done: !w.chance(3)}
		if w.chance(10) {
			c.SplitAttempt++
		}
		for source := range snap.Runs() {
			if source.Partitions == nil || source.Job.Name != r.Job.Name && !w.chance(4) {
				continue
			}
			x := &fsm.AdoptOutputs_Source{Run: string(source.ID)}
			for p := range r.Partitions.Len() {
				for q := range source.Partitions.Len() {
					if w.content(r.ID, p) == w.content(source.ID, q) && !w.chance(8) {
						x.First, x.Count, x.MadeAs = append(x.First, uint32(p)), append(x.Count, 1), append(x.MadeAs, uint32(q))
					}
				}
			}
			if w.chance(4) {
				n := uint32(source.Partitions.Len())
				x.First, x.Count, x.MadeAs = append(x.First, n+w.rng.Uint32N(9)), append(x.Count, 3), append(x.MadeAs, n)
			}
			c.Sources = append(c.Sources, x)
		}
		l.propose(&fsm.Command{Body: &fsm.Command_AdoptOutputs{AdoptOutputs: c}}, nil)
	}
}

// adopted: what was taken over was committed, by another run of the same job that is there, whose task
// and whose shard are the same, and nothing of it was ever placed.
func (o *oracle) adopted(c *fsm.AdoptOutputs, before, after *state.Snapshot) {
	w := o.w
	was, run := before.Run(sheaf.RunID(c.Run)), after.Run(sheaf.RunID(c.Run))
	for i := range run.Partitions.Len() {
		if was.Partitions.Row(i).State == run.Partitions.Row(i).State {
			continue
		}
		s := o.shadow(c.Run, wire.Kind_KIND_PARTITION, uint32(i))
		if run.Partitions.Row(i).State != sheaf.PartitionReused || s.fence != 0 || s.committed != 0 || was.Masked() || !was.Reuse.Waits {
			w.fail("partition %d of %s is taken over as %+v, by the book %+v", i, c.Run, run.Partitions.Row(i), s)
		}
		t, _ := run.TakenAt(i)
		maker := before.Run(run.Reuse.Makers[t.Maker])
		as := int(t.MadeAs) + i - int(t.First)
		made := o.shadow(string(maker.ID), wire.Kind_KIND_PARTITION, uint32(as))
		switch {
		case made == nil || made.committed == 0:
			w.fail("partition %d of %s is taken over from partition %d of %s, which has no output", i, c.Run, as, maker.ID)
		case maker.Job.Name != run.Job.Name || maker.Job.Namespace != run.Job.Namespace || !maker.Job.Reuse || maker.Created >= run.Created:
			w.fail("run %s takes over from %s, which is none of its job before it", c.Run, maker.ID)
		case !slices.Equal(sheaf.TaskFacts(maker.Job, maker.Image, maker.Partitions.Len()), sheaf.TaskFacts(run.Job, run.Image, run.Partitions.Len())):
			w.fail("run %s takes over from %s, whose task is another", c.Run, maker.ID)
		case w.content(run.ID, i) != w.content(maker.ID, as):
			w.fail("partition %d of %s is taken over from partition %d of %s, which read something else", i, c.Run, as, maker.ID)
		}
		s.adopted = true
		w.out.Adopted++
	}
}

// holds: whoever made what a run has taken over is there.
func (o *oracle) holds(after *state.Snapshot, run *state.Run) {
	for _, id := range run.Reuse.Makers {
		if maker := after.Run(id); maker == nil || maker.Created >= run.Created {
			o.w.fail("run %s has outputs of %s, which is %v", run.ID, id, maker)
		}
	}
}

// givenUp: merges of what the run made begin again when it gives up an output, unless their result is
// sealed already.
func (o *oracle) givenUp(id sheaf.RunID, before, after *state.Snapshot) {
	if before.Run(id).Remade == after.Run(id).Remade {
		return
	}
	for r := range after.LiveRuns() {
		if slices.Contains(r.Reuse.Makers, id) && !r.Result.Publishing {
			o.runs[string(r.ID)].merge.valid = nil
		}
	}
}

// origin is the execution that made the committed output of a partition, and the client that has it; nil where it is gone.
func (w *world) origin(snap *state.Snapshot, r *state.Run, i int) (execution, *client) {
	m, ok := snap.Origin(r, i)
	if !ok {
		return execution{}, nil
	}
	return execution{string(m.Run.ID), wire.Kind_KIND_PARTITION, uint32(m.Partition), m.Row.Attempt}, w.client(snap.NodeByNumber(m.Row.Node).ID)
}
