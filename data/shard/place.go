package shard

import "github.com/sheaf-run/agent/sheaf"

// Place is where (a part of) an atom lies in its source.
type Place struct {
	Input int    // in the inputs
	Rel   string // in the source, relative to its root; "" is the root
	Path  string // in the tree
}

// Places says where an atom lies: one place, or for a directory above mounts
// one for each of them.
func Places(inputs []sheaf.Input, a *sheaf.Atom) []Place {
	var all []Place
	for i, in := range inputs {
		switch {
		case a.Path == in.Mount:
			return []Place{{Input: i, Path: a.Path}}
		case within(a.Path, in.Mount):
			rel := a.Path[len(in.Mount):]
			if in.Mount != "/" {
				rel = rel[1:]
			}
			return []Place{{Input: i, Rel: rel, Path: a.Path}}
		case within(in.Mount, a.Path):
			all = append(all, Place{Input: i, Path: in.Mount})
		}
	}
	return all
}
