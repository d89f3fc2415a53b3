package httpapi

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/sheaf-run/agent/api"
	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/server/provenance"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/sheaf"
)

// Bounds of an answer on where a file comes from.
const (
	defaultParts = 100
	maxParts     = 10_000 // held while the rest are counted
	defaultAtoms = 100    // of each part
	maxAtoms     = 1_000_000
	maxMakers    = 1024 // ranges of partitions in the first line
	shardsAtOnce = 256  // partitions whose atoms are read together
)

// provenance says which partitions made a file of the result, or what lies below a directory, and what
// they read. The manifest passes by: it holds the parts that are named, and a bit for each partition.
func (a *API) provenance(w http.ResponseWriter, r *http.Request, in *struct {
	RunRead
	Path  string `query:"path" required:"true" maxLength:"4200" doc:"name of the output, and the path within it; or stdout, stderr, or what is below partitions in the result's folder"`
	Parts string `query:"parts" maxLength:"6" doc:"name at most so many parts; 100 unless told, 10000 at most"`
	Atoms string `query:"atoms" maxLength:"7" doc:"and of each at most so many atoms; 100 unless told"`
}) error {
	most, err := countParam("parts", in.Parts, defaultParts, maxParts)
	if err != nil {
		return err
	}
	atoms, err := countParam("atoms", in.Atoms, defaultAtoms, maxAtoms)
	if err != nil {
		return err
	}
	snap, run, headers, err := a.lookup(r.Context(), in.ReadParams, in.RunParams)
	if err != nil {
		return err
	}
	o := &origins{snap: snap, run: run, most: int(most), made: make([]uint64, run.Counts().Total/64+1)}
	if x, ok := printedAt(run.Job, in.Path); ok {
		if err := o.printed(x); err != nil {
			return err
		}
		headers.write(w)
		out := newLines(w)
		o.end()
		if err := out.write(api.ProvenanceLine{File: &o.file}); err != nil {
			return err
		}
		return out.end(a.writeParts(r.Context(), o, int(atoms), out))
	}
	name, path, _ := strings.Cut(in.Path, "/")
	if err := o.begin(name, strings.TrimSuffix(path, "/")); err != nil {
		return err
	}
	stream, node, err := a.merged(r.Context(), snap, run)
	if err != nil {
		return err
	}
	manifest := &pieceReader{recv: stream.Recv, node: node}
	if err := provenance.Find(manifest, o.file.Output, o.file.Path, provenance.Found{File: o.found, Part: o.part}); err != nil {
		return err
	}
	if o.files == 0 {
		return &sheaf.Error{Class: sheaf.NotFound, Field: "path", Msg: fmt.Sprintf("the result of run %s has no file %q", run.ID, in.Path), Hint: fmt.Sprintf("`agent job results %s` lists them", run.ID)}
	}
	headers.write(w)
	out := newLines(w)
	o.end()
	if err := out.write(api.ProvenanceLine{File: &o.file}); err != nil {
		return err
	}
	return out.end(a.writeParts(r.Context(), o, int(atoms), out))
}

func countParam(name, text string, otherwise, most int64) (int64, error) {
	n, err := intParam(name, text)
	switch {
	case err != nil:
		return 0, err
	case text == "":
		return otherwise, nil
	case n > most:
		return 0, &sheaf.Error{Class: sheaf.Invalid, Field: name, Msg: fmt.Sprintf("%s is %d", name, n), Limit: fmt.Sprint(most)}
	}
	return n, nil
}

// origins gathers where a file, or what lies below a directory, comes from.
type origins struct {
	snap *state.Snapshot
	run  *state.Run
	most int
	file api.ProvenanceFile

	files int
	dir   bool
	at    int64    // where the next part begins
	made  []uint64 // a bit for each partition
	parts []api.ProvenancePart
	// Of a directory the parts are summed by partition, of the lowest only: what is above last is not among those to be named.
	sums map[int]*api.ProvenancePart
	seen map[int]int // the file that a partition was counted for last
	last int
}

// begin says what is looked for.
func (o *origins) begin(name, path string) error {
	outputs := o.run.Job.Results()
	i := slices.IndexFunc(outputs, func(x sheaf.Output) bool { return x.Name == name })
	if i < 0 {
		var names []string
		for _, x := range outputs {
			names = append(names, x.Name)
		}
		return &sheaf.Error{Class: sheaf.NotFound, Field: "path", Msg: fmt.Sprintf("run %s has no output %q", o.run.ID, name), Limit: strings.Join(names, ", "), Hint: "a path begins with the name of its output"}
	}
	t, image := o.run.Job.Task, o.run.Image
	if i >= len(o.run.Job.Outputs) {
		t, image = o.run.Job.Reduce.Task, o.run.Reduce.Image
	}
	o.file = api.ProvenanceFile{
		Run: o.run.ID, Job: o.run.Job.Name, Output: name, Merge: outputs[i].Merge, Path: path,
		Task: t.Name, Driver: t.Driver, Config: t.Config, Image: image,
	}
	o.sums, o.seen, o.last = map[int]*api.ProvenancePart{}, map[int]int{}, sheaf.MaxPartitions
	return nil
}

// found takes a file: the one that was asked for, or one below it.
func (o *origins) found(f sheaf.File) error {
	o.files++
	o.at = 0
	o.dir = f.Path != o.file.Path
	o.file.Size += f.Size
	if !o.dir {
		o.file.SHA256, o.file.Link = f.SHA256, f.Link
	}
	return nil
}

func (o *origins) part(p sheaf.Part) error {
	if p.Partition < 0 || p.Partition/64 >= len(o.made) {
		return &sheaf.Error{Class: sheaf.Internal, Msg: fmt.Sprintf("the manifest of run %s names a partition %d", o.run.ID, p.Partition)}
	}
	o.made[p.Partition/64] |= 1 << (p.Partition % 64)
	at := o.at
	o.at += p.Size
	if !o.dir {
		if o.file.Parts++; len(o.parts) < o.most {
			o.parts = append(o.parts, api.ProvenancePart{Partition: p.Partition, Attempt: p.Attempt, Node: p.Node, Offset: at, Path: p.Path, Size: p.Size, SHA256: p.SHA256})
		}
		return nil
	}
	if p.Partition > o.last {
		return nil
	}
	sum := o.sums[p.Partition]
	if sum == nil {
		sum = &api.ProvenancePart{Partition: p.Partition, Attempt: p.Attempt, Node: p.Node}
		o.sums[p.Partition] = sum
	}
	sum.Size += p.Size
	if o.seen[p.Partition] != o.files {
		o.seen[p.Partition] = o.files
		sum.Files++
	}
	if len(o.sums) >= 2*o.most+2 {
		o.prune()
	}
	return nil
}

// prune forgets all but the lowest partitions.
func (o *origins) prune() {
	kept := o.lowest()
	o.last = 0
	for i, p := range kept {
		if i < o.most {
			o.last = p
			continue
		}
		delete(o.sums, p)
		delete(o.seen, p)
	}
}

func (o *origins) lowest() []int {
	all := make([]int, 0, len(o.sums))
	for p := range o.sums {
		all = append(all, p)
	}
	slices.Sort(all)
	return all
}

// end completes the first line.
func (o *origins) end() {
	if o.dir {
		o.file.Files = o.files
		for i, p := range o.lowest() {
			if i < o.most {
				o.parts = append(o.parts, *o.sums[p])
			}
		}
	}
	o.file.Partitions = sheaf.Ranges{}
	count := 0
	for i := range o.made {
		for j := range 64 {
			if o.made[i]&(1<<j) == 0 {
				continue
			}
			count++
			n := len(o.file.Partitions)
			if n == maxMakers && o.file.Partitions[n-1].Last != i*64+j-1 {
				o.file.More = true
			}
			if !o.file.More {
				o.file.Partitions = o.file.Partitions.Add(i*64 + j)
			}
		}
	}
	if o.dir {
		o.file.Parts = count
	}
}

// writeParts writes the parts that are named, each with who made it and what that read.
func (a *API) writeParts(ctx context.Context, o *origins, atoms int, out *lines) error {
	for from := 0; from < len(o.parts); {
		if p := &o.parts[from]; o.run.IsReduce(p.Partition) { // it read the merged outputs, of which each has its own provenance
			o.complete(p)
			for _, x := range o.run.Job.Outputs {
				p.Atoms = append(p.Atoms, api.Atom{Path: x.Path, Input: x.Name, Dir: true})
			}
			p.AtomsAll = len(p.Atoms)
			if err := out.write(api.ProvenanceLine{Part: p}); err != nil {
				return err
			}
			from++
			continue
		}
		// Those that follow one another are read together: of a file they come in order.
		to := from + 1
		for to < len(o.parts) && to-from < shardsAtOnce && o.parts[to].Partition == o.parts[to-1].Partition+1 && !o.run.IsReduce(o.parts[to].Partition) {
			to++
		}
		batch := o.parts[from:to]
		err := a.Server.Shards(ctx, o.run, batch[0].Partition, len(batch), atoms, func(read provenance.Read) error {
			p := &batch[read.Partition-batch[0].Partition]
			o.complete(p)
			p.Key, p.AtomsAll = read.Key, read.Total
			for _, x := range read.Atoms {
				p.Atoms = append(p.Atoms, api.Atom{Path: x.Path, Input: x.Input, Size: x.Size, Dir: x.Dir, Identity: x.Identity})
			}
			err := out.write(api.ProvenanceLine{Part: p})
			p.Atoms = nil
			return err
		})
		if err != nil {
			return err
		}
		from = to
	}
	return nil
}

// complete says of a part what the log knows.
func (o *origins) complete(p *api.ProvenancePart) {
	p.NodeName = nodeName(o.snap, p.Node)
	if now := o.snap.Partition(o.run, p.Partition); now.Attempt == p.Attempt {
		p.MadeBy, p.Started, p.Ended = now.MadeBy, now.Started, now.Ended
	}
}

// pieceReader reads the manifest that a node sends.
type pieceReader struct {
	recv func() (*wire.ResultPiece, error)
	node sheaf.NodeID
	rest []byte
}

// Read implements io.Reader.
func (r *pieceReader) Read(b []byte) (int, error) {
	for len(r.rest) == 0 {
		p, err := r.recv()
		if err != nil {
			if told := nodeError(r.node, err); told != nil {
				return 0, told
			}
			return 0, io.EOF
		}
		r.rest = p.GetData()
	}
	n := copy(b, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}
