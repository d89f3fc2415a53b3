package reuse

import (
	"context"
	"fmt"
	"strings"

	"github.com/sheaf-run/agent/data/shard"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/sheaf"
)

const (
	// maxIndexed is how many earlier partitions a diff knows by their fingerprints: some 200 MB.
	maxIndexed = 4 << 20
	// maxLooked is how many atoms of partitions that run are looked up among those read before.
	maxLooked = 1 << 20
	// maxNamed is how many atoms are named for one partition.
	maxNamed = 3
)

// Line is what would become of partitions in a row.
type Line struct {
	First, Last int
	From        sheaf.RunID // of which the output is taken over; else they run
	MadeAs      int         // the partition of From that First is
	Reasons     []string    // why they run
}

// Diff says of each partition of a job that is planned whether it would run, and why. The manifest is the
// chunks that a split makes now, with fingerprints. What the image or module is resolved to is
// known only when it runs: it is taken to be what it was.
func Diff(ctx context.Context, store Chunks, snap *state.Snapshot, job *sheaf.Job, manifest [][]byte, yield func(Line) error) error {
	d := &differ{yield: yield, made: map[shard.Fingerprint]place{}, tried: map[shard.Fingerprint]string{}}
	earlier := Earlier(snap, job.Namespace, job.Name, nil)
	switch {
	case !job.Reuse:
		d.all = []string{"the job does not say reuse = true"}
	case len(earlier) == 0:
		d.all = []string{"no earlier run of the job had reuse"}
	default:
		d.last = earlier[0]
		facts := sheaf.TaskFacts(job, d.last.Image, int(d.last.Manifest.Partitions))
		if err := d.index(ctx, store, snap, earlier, sheaf.TaskKey(facts)); err != nil {
			return err
		}
		if changed := sheaf.ChangedFacts(Facts(d.last), facts); len(changed) > 0 {
			d.task = "changed task since run " + string(d.last.ID) + ": " + strings.Join(changed, ", ")
		} else if was := d.last.Job.Count; job.Split == nil && was != job.Count {
			d.task = fmt.Sprintf("changed count: it was %d in run %s", was, d.last.ID)
		}
	}
	for _, chunk := range manifest {
		first, prints, err := shard.Fingerprints(chunk)
		if err != nil {
			return err
		}
		for i, f := range prints {
			d.look(first+i, f)
		}
	}
	if len(d.unknown) > 0 {
		if err := d.atoms(ctx, store, manifest); err != nil {
			return err
		}
	}
	return d.write()
}

type place struct {
	run *state.Run
	at  int
}

type differ struct {
	yield func(Line) error
	all   []string // why every partition runs
	task  string   // how the task differs from that of the last run; "" is not
	last  *state.Run
	made  map[shard.Fingerprint]place
	tried map[shard.Fingerprint]string // of what ran before without an output, why

	lines   []Line
	unknown []int // places in lines of partitions whose atoms are to be looked at
}

// index learns what runs of the same task have made, or tried to.
func (d *differ) index(ctx context.Context, store Chunks, snap *state.Snapshot, earlier []*state.Run, key [32]byte) error {
	for n, r := range earlier {
		if n >= maxSources || len(d.made)+len(d.tried) >= maxIndexed {
			return nil
		}
		if Key(r) != key {
			continue
		}
		origins := snap.Origins()
		err := prints(ctx, store, r, 0, int(r.Manifest.Partitions), func(p int, f shard.Fingerprint) bool {
			switch {
			case origins.Available(r, p):
				if _, ok := d.made[f]; !ok {
					d.made[f] = place{r, p}
				}
			case d.tried[f] == "":
				d.tried[f] = unmade(r, p)
			}
			return len(d.made)+len(d.tried) < maxIndexed
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// look says what becomes of the next partition.
func (d *differ) look(p int, f shard.Fingerprint) {
	if m, ok := d.made[f]; ok {
		if n := len(d.lines) - 1; n >= 0 && d.lines[n].From == m.run.ID && d.lines[n].Last == p-1 && d.lines[n].MadeAs+p-d.lines[n].First == m.at {
			d.lines[n].Last = p
			return
		}
		d.lines = append(d.lines, Line{First: p, Last: p, From: m.run.ID, MadeAs: m.at})
		return
	}
	var why []string
	switch {
	case d.all != nil:
		why = d.all
	case d.tried[f] != "":
		why = []string{d.tried[f]}
	case d.task != "":
		why = []string{d.task}
	}
	if why == nil {
		d.unknown = append(d.unknown, len(d.lines))
	} else if n := len(d.lines) - 1; n >= 0 && len(d.lines[n].Reasons) == 1 && d.lines[n].Reasons[0] == why[0] && d.lines[n].Last == p-1 {
		d.lines[n].Last = p
		return
	}
	d.lines = append(d.lines, Line{First: p, Last: p, Reasons: why})
}

// atoms holds the atoms of partitions that run against those that the last run read.
func (d *differ) atoms(ctx context.Context, store Chunks, manifest [][]byte) error {
	index := make([]shard.Extent, len(manifest))
	for i, chunk := range manifest {
		first, prints, err := shard.Fingerprints(chunk)
		if err != nil {
			return err
		}
		index[i] = shard.Extent{First: first, Count: len(prints)}
	}
	wanted := map[string]string{} // identities by path, as they were; "-" is not there
	scan := func(yield func(line *Line, v *shard.View)) error {
		for _, at := range d.unknown {
			line := &d.lines[at]
			from, to := shard.Select(index, line.First, 1)
			if err := shard.Scan(manifest[from:to], line.First, 1, func(v *shard.View) error {
				yield(line, v)
				return ctx.Err()
			}); err != nil {
				return err
			}
		}
		return nil
	}
	err := scan(func(_ *Line, v *shard.View) {
		for i := range v.Atoms {
			if len(wanted) < maxLooked {
				wanted[v.Atoms[i].Path] = "-"
			}
		}
	})
	if err != nil {
		return err
	}
	if err := d.before(ctx, store, wanted); err != nil {
		return err
	}
	return scan(func(line *Line, v *shard.View) { line.Reasons = d.compare(v, wanted) })
}

// before looks up what the last run read at the wanted paths.
func (d *differ) before(ctx context.Context, store Chunks, wanted map[string]string) error {
	var chunks [][]byte
	m := d.last.Manifest
	for seq := range m.Chunks {
		data, err := store.Chunk(d.last, seq)
		if err != nil {
			return err
		}
		chunks = append(chunks, data)
		if seq+1 < len(m.Chunks) && m.Chunks[seq+1].Count == 0 {
			continue // the last partition goes on in the next chunk
		}
		first, count := m.Chunks[seq+1-len(chunks)].First, uint32(0)
		for i := range chunks {
			count += m.Chunks[seq+1-len(chunks)+i].Count
		}
		err = shard.Scan(chunks, int(first), int(count), func(v *shard.View) error {
			for i := range v.Atoms {
				if _, ok := wanted[v.Atoms[i].Path]; ok {
					wanted[v.Atoms[i].Path] = v.Atoms[i].Identity()
				}
			}
			return ctx.Err()
		})
		if err != nil {
			return err
		}
		chunks = chunks[:0]
	}
	return nil
}

// compare says what of a partition the last run has not read like this.
func (d *differ) compare(v *shard.View, was map[string]string) []string {
	var fresh, changed []string
	for i := range v.Atoms {
		a := &v.Atoms[i]
		switch before, looked := was[a.Path]; {
		case !looked:
		case before == "-":
			fresh = append(fresh, a.Path)
		case before != a.Identity():
			changed = append(changed, a.Path)
		}
	}
	var why []string
	if len(fresh) > 0 {
		why = append(why, "new: "+some(fresh))
	}
	if len(changed) > 0 {
		why = append(why, "changed: "+some(changed))
	}
	if why == nil {
		why = []string{"its atoms were together with others in run " + string(d.last.ID)}
	}
	return why
}

// some names the first of several paths.
func some(paths []string) string {
	if n := len(paths) - maxNamed; n > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(paths[:maxNamed], ", "), n)
	}
	return strings.Join(paths, ", ")
}

func (d *differ) write() error {
	for _, l := range d.lines {
		if err := d.yield(l); err != nil {
			return err
		}
	}
	return nil
}
