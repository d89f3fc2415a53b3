package merge

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/sheaf-run/agent/data/output"
	"github.com/sheaf-run/agent/sheaf"
)

// rule is how one output is merged.
type rule struct {
	name, merge, conflict string
}

func newRule(o sheaf.Output) (rule, error) {
	r := rule{o.Name, o.Merge, o.OnConflict}
	if r.merge == "" {
		r.merge = sheaf.MergeUnion
	}
	if r.conflict == "" {
		r.conflict = sheaf.ConflictError
	}
	switch r.merge {
	case sheaf.MergeUnion, sheaf.MergeConcat, sheaf.MergeNone:
	default:
		return r, &sheaf.Error{Class: sheaf.Invalid, Field: "merge", Msg: fmt.Sprintf("output %q cannot be merged by %q", o.Name, o.Merge), Hint: `use "union", "concat" or "none"`}
	}
	switch r.conflict {
	case sheaf.ConflictError, sheaf.ConflictRename, sheaf.ConflictLast:
	default:
		return r, &sheaf.Error{Class: sheaf.Invalid, Field: "on_conflict", Msg: fmt.Sprintf("output %q has the unknown on_conflict %q", o.Name, o.OnConflict), Hint: `use "error", "rename" or "last"`}
	}
	return r, nil
}

func (r rule) conflictOf(path string, a, b uint32, how string) error {
	a, b = min(a, b), max(a, b)
	who := fmt.Sprintf("%s partitions %d and %d", how, a, b)
	if a == b { // what was renamed has met another of the same partition
		who = fmt.Sprintf("is what a file of partition %d would be renamed to, and is there already", a)
	}
	return &sheaf.Error{Class: sheaf.Conflict, Field: "output." + r.name, Hint: sheaf.OutputConflict{}.Hint(r.merge),
		Msg: fmt.Sprintf("merge output %q: %q %s", r.name, output.Clip(path), who)}
}

// group is the items of one path, of which one waits for what lies below.
type group struct {
	item  item   // the first; under "last" the latest
	top   uint32 // highest partition that wrote the path
	below uint32 // highest partition that wrote something below it, plus one
}

// resolve reads items by tree, settles where they meet, and hands on what is
// kept. What lies below a path follows it at once, so that the open groups
// are those of the path from the root to the present item.
func (m *merger) resolve(from *sorter, keep func(*item) error) error {
	var open []group
	n := 0
	err := from.each(func(it *item) error {
		if n++; n%4096 == 0 && m.ctx.Err() != nil {
			return m.ctx.Err()
		}
		for len(open) > 0 && !open[len(open)-1].holds(it) {
			if err := m.settle(open, keep); err != nil {
				return err
			}
			open = open[:len(open)-1]
		}
		above, same := open, (*group)(nil)
		if k := len(open); k > 0 && open[k-1].item.file.Path == it.file.Path {
			above, same = open[:k-1], &open[k-1]
		}
		for i := range above {
			if err := m.meets(&above[i], it); err != nil {
				return err
			}
		}
		if same != nil {
			return m.again(same, it, keep)
		}
		open = append(open, group{item: *it, top: it.partition})
		return nil
	})
	for err == nil && len(open) > 0 {
		err = m.settle(open, keep)
		open = open[:len(open)-1]
	}
	return err
}

// holds reports whether it has the group's path or lies below it.
func (g *group) holds(it *item) bool {
	dir, path := g.item.file.Path, it.file.Path
	return g.item.output == it.output && strings.HasPrefix(path, dir) && (len(path) == len(dir) || path[len(dir)] == '/')
}

// meets takes note that it lies below the path of g.
func (m *merger) meets(g *group, it *item) error {
	r := m.rules[it.output]
	g.below = max(g.below, it.partition+1)
	if r.merge == sheaf.MergeConcat || r.conflict == sheaf.ConflictError {
		return r.conflictOf(g.item.file.Path, g.item.partition, it.partition, "is a file in one and a directory in the other of")
	}
	return nil
}

// again takes a further item of g's path.
func (m *merger) again(g *group, it *item, keep func(*item) error) error {
	r := m.rules[it.output]
	g.top = max(g.top, it.partition)
	switch {
	case r.merge == sheaf.MergeConcat:
		if g.item.file.Link != it.file.Link {
			return r.conflictOf(it.file.Path, g.item.partition, it.partition, "is a link, and not the same one, in")
		}
		if it.file.Link != "" {
			return nil
		}
		return keep(it)
	case r.conflict == sheaf.ConflictRename:
		it.rename()
		return keep(it)
	case r.conflict == sheaf.ConflictLast:
		g.item = *it
		return nil
	}
	return r.conflictOf(it.file.Path, g.item.partition, it.partition, "was written by both")
}

// settle hands on the item that waited in the innermost group, if it is kept.
func (m *merger) settle(open []group, keep func(*item) error) error {
	g := &open[len(open)-1]
	it := &g.item
	r := m.rules[it.output]
	if r.merge == sheaf.MergeUnion {
		switch r.conflict {
		case sheaf.ConflictRename:
			if g.below > 0 {
				it.rename()
			}
		case sheaf.ConflictLast:
			if g.below > it.partition+1 {
				return nil
			}
			for _, above := range open[:len(open)-1] {
				if above.top > it.partition {
					return nil
				}
			}
		}
	}
	return keep(it)
}

func (it *item) rename() {
	if it.origin == "" {
		it.origin = it.file.Path
	}
	it.file.Path += ".p" + strconv.FormatUint(uint64(it.partition), 10)
}
