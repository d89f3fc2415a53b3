// Package stage lays the atoms of a shard out as the tree that its task sees:
// a directory on the host for each input, to be mounted read-only at the input's mount.
//
// Files are hard links where links are allowed and both sides lie on one file
// system, else reflinks, else copies. A symlink to a file inside the source becomes that file; links
// to directories are left out, as the listing leaves them out; what leads out of the source or is no
// file or directory is an error that names it. An input that a shard takes as a whole is
// mounted from where it lies, links and all, when links are allowed. The content is what the split saw:
// each atom's identity is checked when it is laid out and again by [Tree.Verify]
// after the run.
//
// Nothing is read outside a source: directories are opened name by name and
// links among them refused; where a link to a file leads is for the source to say.
//
// The caller decides whether anything is to be staged: a shard without data
// makes nothing on disk.
package stage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/sheaf-run/agent/data/shard"
	"github.com/sheaf-run/agent/sheaf"
)

// Source is an input's files as far as staging needs them. One that has no
// local root, such as a single file, lists itself as a data/source Source does.
type Source interface {
	// Local is the host path of a path relative to the source's root, with links
	// resolved; false where there is none, or it leads out of the source. For "" it is
	// the root itself, or false where that is not to be mounted as it is.
	Local(rel string) (hostPath string, ok bool)
}

// Fetcher is a Source whose files lie elsewhere. It lists itself, and brings a file here.
type Fetcher interface {
	Source
	lister
	// Fetch gives the path on this host of the file at rel, which has the identity. It stays
	// there until release is called, and links to it stay longer.
	Fetch(ctx context.Context, rel, identity string) (host string, release func(), err error)
}

// Input is an input of the run with its source opened.
type Input struct {
	Name   string
	Mount  string // absolute, clean
	Source Source
}

// Stager lays shards out. Its methods may be called concurrently.
type Stager struct {
	// Links allows hard links to originals, and inputs mounted from where they
	// lie: only where the task's mounts are read-only for certain.
	Links bool
	// ShardFile, if set, writes the shard as the task's SHEAF_SHARD_FILE.
	ShardFile func(w io.Writer, shard sheaf.Shard) error
	// ShardMount is the directory in the task's tree that holds the shard file
	// when ShardFile is set.
	ShardMount string
}

// ShardName is the shard file's name in its mount.
const ShardName = "shard.jsonl"

// Mount is a host directory and where the task sees it.
type Mount struct {
	Host     string
	Target   string
	ReadOnly bool
}

// Tree is a shard that was laid out.
type Tree struct {
	Mounts []Mount
	Bytes  int64 // copied; links cost nothing

	dir    string
	linked []linked
	whole  []wholeAtom
}

// checkEvery is after how many files a context is looked at.
const checkEvery = 256

// Stage lays shard out below dir, which is made if needed and belongs to the
// tree. An error of class Conflict names a file that changed since the split; one of class Invalid
// names what cannot be staged. After an error dir has been removed.
func (s *Stager) Stage(ctx context.Context, dir string, shard sheaf.Shard, inputs []Input) (*Tree, error) {
	if len(shard.Data) == 0 {
		return &Tree{}, nil
	}
	l := &layout{ctx: ctx, links: s.Links, tree: &Tree{dir: dir}, inputs: make([]*place, len(inputs)), come: map[string]fetched{}}
	err := l.stage(shard, inputs)
	if err == nil && s.ShardFile != nil {
		err = s.writeShard(l.tree, shard)
	}
	l.close()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("stage inputs of partition %d: %w", shard.Index, err), os.RemoveAll(dir))
	}
	return l.tree, nil
}

// Whole gives the tree of a run without split where links are allowed: every input as it is, read-only,
// nothing made on disk. Where they are not, and for an input that has no local root (a single file), the error
// is of class Unsupported: stage the shard of data/shard's Whole instead, which copies.
func (s *Stager) Whole(inputs []Input) (*Tree, error) {
	t := &Tree{}
	for _, in := range inputs {
		root, ok := in.Source.Local("")
		if !ok || !s.Links {
			return nil, &sheaf.Error{Class: sheaf.Unsupported, Field: "input." + in.Name, Msg: fmt.Sprintf("input %q cannot be mounted from where it lies", in.Name)}
		}
		t.Mounts = append(t.Mounts, Mount{Host: root, Target: in.Mount, ReadOnly: true})
	}
	return t, nil
}

func (s *Stager) writeShard(t *Tree, shard sheaf.Shard) error {
	host := filepath.Join(t.dir, "shard")
	if err := os.Mkdir(host, 0o755); err != nil {
		return fmt.Errorf("write shard file: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(host, ShardName), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return fmt.Errorf("write shard file: %w", err)
	}
	err = s.ShardFile(f, shard)
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write shard file: %w", err)
	}
	t.Mounts = append(t.Mounts, Mount{Host: host, Target: s.ShardMount, ReadOnly: true})
	return nil
}

// layout is a shard being laid out.
type layout struct {
	ctx    context.Context
	links  bool
	tree   *Tree
	inputs []*place
	files  int
	buf    []byte
	come   map[string]fetched // by path in the tree, what was brought here and not laid out yet
}

func (l *layout) stage(sh sheaf.Shard, inputs []Input) error {
	if err := os.MkdirAll(l.tree.dir, 0o755); err != nil {
		return err
	}
	named := make([]sheaf.Input, len(inputs))
	for i, in := range inputs {
		p, err := newPlace(in, filepath.Join(l.tree.dir, "in"+strconv.Itoa(i)))
		if err != nil {
			return err
		}
		l.inputs[i] = p
		named[i] = sheaf.Input{Name: in.Name, Mount: in.Mount}
	}
	atoms := outermost(sh.Atoms())
	if err := l.fetchAtoms(named, atoms); err != nil {
		return err
	}
	for _, a := range atoms {
		if err := l.atom(named, a); err != nil {
			return err
		}
	}
	for _, p := range l.inputs {
		host := p.host
		if p.whole {
			host = p.root
		}
		l.tree.Mounts = append(l.tree.Mounts, Mount{Host: host, Target: p.in.Mount, ReadOnly: true})
	}
	return nil
}

// outermost leaves out atoms that lie inside others, as those of different
// inputs' globs may: they are staged with them.
func outermost(atoms []*sheaf.Atom) []*sheaf.Atom {
	dirs := map[string]bool{}
	for _, a := range atoms {
		if a.Dir {
			dirs[a.Path] = true
		}
	}
	if len(dirs) == 0 || len(atoms) == 1 {
		return atoms
	}
	return slices.DeleteFunc(atoms, func(a *sheaf.Atom) bool {
		if a.Path == "/" {
			return false
		}
		for at := path.Dir(a.Path); ; at = path.Dir(at) {
			if dirs[at] {
				return true
			}
			if at == "/" {
				return false
			}
		}
	})
}

func (l *layout) close() {
	for _, f := range l.come {
		f.release()
	}
	for _, p := range l.inputs {
		if p != nil {
			p.close()
		}
	}
}

func (l *layout) atom(inputs []sheaf.Input, a *sheaf.Atom) error {
	places := shard.Places(inputs, a)
	if len(places) == 0 {
		return &sheaf.Error{Class: sheaf.Invalid, Msg: fmt.Sprintf("%q lies in no input", a.Path)}
	}
	if !a.Dir {
		return l.put(l.inputs[places[0].Input], places[0].Rel, a.Path, a.Identity)
	}
	h := newHasher(a)
	var whole []*place
	for _, at := range places {
		p := l.inputs[at.Input]
		h.above(at.Path)
		switch {
		case at.Rel == "" && p.root == "" || p.far() != nil:
			if err := l.listed(p, at.Rel, h); err != nil {
				return err
			}
		case at.Rel == "" && l.links:
			p.whole = true
			if err := h.listing(l.ctx, p, ""); err != nil {
				return err
			}
			whole = append(whole, p)
		default:
			if err := l.dir(p, at.Rel, h); err != nil {
				return err
			}
		}
	}
	if h.wanted() && len(whole) == len(places) {
		l.tree.whole = append(l.tree.whole, newWhole(*a, whole))
	}
	return h.check()
}

// tick looks at the context now and then.
func (l *layout) tick() error {
	if l.files++; l.files%checkEvery == 0 {
		return l.ctx.Err()
	}
	return nil
}
