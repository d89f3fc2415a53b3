package source

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/sheaf-run/agent/sheaf"
)

// Tree is the inputs of a job, each at its mount.
type Tree struct {
	inputs  []sheaf.Input
	sources []Source
	steps   []step
}

// step is a piece of the tree in order: a directory, or what lies in a mount.
type step struct {
	path  string // absolute; "/" is the root
	input int    // whose mount it is or, of a directory, that holds it; -1 for several
	mount bool
}

// OpenTree opens the sources of all inputs. An error names the input.
func OpenTree(inputs []sheaf.Input, cfg Config) (*Tree, error) {
	t := &Tree{inputs: inputs}
	for _, in := range inputs {
		s, err := Open(in.Source, cfg)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("open input %q: %w", in.Name, err), t.Close())
		}
		t.sources = append(t.sources, s)
	}
	if err := t.plan(); err != nil {
		return nil, errors.Join(err, t.Close())
	}
	return t, nil
}

// NewTree is a tree of sources that are open already, one for each input. The
// sources become the tree's to close, unless there is an error.
func NewTree(inputs []sheaf.Input, sources []Source) (*Tree, error) {
	t := &Tree{inputs: inputs, sources: sources}
	if err := t.plan(); err != nil {
		return nil, err
	}
	return t, nil
}

// plan puts mounts and the directories above them in order.
func (t *Tree) plan() error {
	holds := map[string]int{} // directory to the input below it, -1 for several
	for i, in := range t.inputs {
		if !strings.HasPrefix(in.Mount, "/") {
			return &sheaf.Error{Class: sheaf.Invalid, Field: "mount", Msg: fmt.Sprintf("mount %q of input %q is not absolute", in.Mount, in.Name), Hint: "begin it with /"}
		}
		for j := range i {
			if overlap(in.Mount, t.inputs[j].Mount) {
				return &sheaf.Error{Class: sheaf.Invalid, Field: "mount", Msg: fmt.Sprintf("the mounts of inputs %q and %q overlap", t.inputs[j].Name, in.Name), Hint: "mount them beside each other"}
			}
		}
		for at := in.Mount; ; at = parent(at) {
			if _, ok := holds[at]; ok {
				holds[at] = -1
			} else {
				holds[at] = i
			}
			if at == "/" {
				break
			}
		}
		t.steps = append(t.steps, step{path: in.Mount, input: i, mount: true})
	}
	for path, input := range holds {
		if path != "/" {
			t.steps = append(t.steps, step{path: path, input: input})
		}
	}
	slices.SortFunc(t.steps, func(a, b step) int { return strings.Compare(a.key(), b.key()) })
	return nil
}

// key sorts a directory at its path and the content of a mount where the path of its
// first entry could stand.
func (s step) key() string {
	if s.mount && s.path != "/" {
		return s.path + "/"
	}
	return s.path
}

func overlap(a, b string) bool {
	if len(a) > len(b) {
		a, b = b, a
	}
	_, ok := below(a, b)
	return ok
}

// parent is the directory of an absolute clean path other than "/".
func parent(path string) string { return path[:max(1, strings.LastIndexByte(path, '/'))] }

// Walk hands the entries of the whole tree to yield, in bytewise order of their absolute
// paths, as [Source] does. Mounts and the directories above them are
// listed as directories; descend, given absolute paths, may be nil.
func (t *Tree) Walk(ctx context.Context, descend func(dir string) bool, yield func([]sheaf.Entry) error) error {
	return t.walk(ctx, "/", descend, yield)
}

// WalkBelow is Walk for what lies below one directory of the tree: the content
// of a directory atom, in the order in which shard.TreeHash takes it.
func (t *Tree) WalkBelow(ctx context.Context, dir string, yield func([]sheaf.Entry) error) error {
	return t.walk(ctx, dir, nil, yield)
}

func (t *Tree) walk(ctx context.Context, dir string, descend func(string) bool, yield func([]sheaf.Entry) error) error {
	if input, rel, ok := t.find(dir); ok && rel != "" {
		return t.list(ctx, input, Scope{Below: rel, Descend: t.inSource(input, descend)}, yield)
	}
	found := dir == "/"
	for _, s := range t.steps {
		_, ok := below(dir, s.path)
		if found = found || ok; !ok {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		var err error
		switch {
		case s.mount && (descend == nil || descend(s.path)):
			err = t.list(ctx, s.input, Scope{Descend: t.inSource(s.input, descend)}, yield)
		case !s.mount && s.path != dir:
			err = yield([]sheaf.Entry{{Path: s.path, Input: int32(s.input), Kind: sheaf.EntryDir}})
		}
		if err != nil {
			return err
		}
	}
	if !found {
		return notInTree(dir)
	}
	return nil
}

// list lists a source under its mount.
func (t *Tree) list(ctx context.Context, input int, scope Scope, yield func([]sheaf.Entry) error) error {
	prefix := strings.TrimSuffix(t.inputs[input].Mount, "/") + "/"
	var yieldErr error
	var paths []byte
	err := t.sources[input].List(ctx, scope, func(entries []sheaf.Entry) error {
		paths = paths[:0]
		for i := range entries {
			paths = append(append(paths, prefix...), entries[i].Path...)
		}
		shared, from := string(paths), 0
		for i := range entries {
			end := from + len(prefix) + len(entries[i].Path)
			entries[i].Path, entries[i].Input = shared[from:end], int32(input)
			from = end
		}
		yieldErr = yield(entries)
		return yieldErr
	})
	if err != nil && (yieldErr == nil || !errors.Is(err, yieldErr)) {
		return fmt.Errorf("list input %q: %w", t.inputs[input].Name, err)
	}
	return err
}

// inSource makes descend take paths relative to the source.
func (t *Tree) inSource(input int, descend func(string) bool) func(string) bool {
	if descend == nil {
		return nil
	}
	prefix := strings.TrimSuffix(t.inputs[input].Mount, "/") + "/"
	return func(dir string) bool { return descend(prefix + dir) }
}

// find is the input in whose mount path lies, and the path in its source.
func (t *Tree) find(path string) (input int, rel string, ok bool) {
	for i, in := range t.inputs {
		if rel, ok := below(in.Mount, path); ok {
			return i, rel, true
		}
	}
	return 0, "", false
}

func notInTree(path string) error {
	return &sheaf.Error{Class: sheaf.NotFound, Msg: quote(path) + " lies in no input's mount"}
}

// Open opens the file at an absolute path of the tree, as [Source.Open] does.
func (t *Tree) Open(ctx context.Context, path, identity string) (File, error) {
	input, rel, ok := t.find(path)
	if !ok {
		return nil, notInTree(path)
	}
	f, err := t.sources[input].Open(ctx, rel, identity)
	if err != nil {
		return nil, fmt.Errorf("input %q: %w", t.inputs[input].Name, err)
	}
	return f, nil
}

// Local is the path on this machine of the file at an absolute path of the
// tree, where it has one.
func (t *Tree) Local(path string) (host string, ok bool) {
	input, rel, ok := t.find(path)
	if !ok {
		return "", false
	}
	return t.sources[input].Local(rel)
}

// Shared reports whether every input is shared.
func (t *Tree) Shared() bool {
	return !slices.ContainsFunc(t.sources, func(s Source) bool { return !s.Shared() })
}

// Close closes all sources.
func (t *Tree) Close() error {
	var errs []error
	for _, s := range t.sources {
		errs = append(errs, s.Close())
	}
	return errors.Join(errs...)
}
