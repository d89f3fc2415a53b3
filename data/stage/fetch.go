package stage

import (
	"golang.org/x/sync/errgroup"

	"github.com/sheaf-run/agent/data/shard"
	"github.com/sheaf-run/agent/sheaf"
)

// fetchAtOnce is how many files one shard brings here at once: enough to hide the way
// there and back, few enough that many shards at once do not open hundreds of connections.
const fetchAtOnce = 8

// fetched is a file that was brought here.
type fetched struct {
	host    string
	release func()
}

// far is the input's source where its files lie elsewhere, else nil.
func (p *place) far() Fetcher {
	f, _ := p.in.Source.(Fetcher)
	return f
}

// wanted is a file to be brought here.
type wanted struct {
	p                   *place
	rel, path, identity string
}

// fetchAtoms brings the files among the atoms here that lie elsewhere.
func (l *layout) fetchAtoms(inputs []sheaf.Input, atoms []*sheaf.Atom) error {
	var all []wanted
	for _, a := range atoms {
		if at := shard.Places(inputs, a); !a.Dir && len(at) == 1 && l.inputs[at[0].Input].far() != nil {
			all = append(all, wanted{l.inputs[at[0].Input], at[0].Rel, a.Path, a.Identity})
		}
	}
	return l.fetch(all)
}

// fetchEntries brings the files among the entries here, if their source is far.
func (l *layout) fetchEntries(p *place, entries []sheaf.Entry) error {
	if p.far() == nil {
		return nil
	}
	var all []wanted
	for i := range entries {
		if e := &entries[i]; e.Kind == sheaf.EntryFile {
			all = append(all, wanted{p, e.Path, p.inTree(e.Path), e.Identity()})
		}
	}
	return l.fetch(all)
}

func (l *layout) fetch(all []wanted) error {
	got := make([]fetched, len(all))
	g, ctx := errgroup.WithContext(l.ctx)
	g.SetLimit(fetchAtOnce)
	for i, x := range all {
		g.Go(func() error {
			host, release, err := x.p.far().Fetch(ctx, x.rel, x.identity)
			if sheaf.ClassOf(err) == sheaf.NotFound {
				return asGone(x.path, err)
			}
			if err != nil {
				return err
			}
			got[i] = fetched{host, release}
			return nil
		})
	}
	err := g.Wait()
	for i, x := range all {
		if got[i].release != nil {
			l.come[x.path] = got[i]
		}
	}
	return err
}

// brought lays out a file that was fetched.
func (l *layout) brought(p *place, rel, path, identity string) (stat, error) {
	f, ok := l.come[path]
	if !ok {
		if err := l.fetch([]wanted{{p, rel, path, identity}}); err != nil {
			return stat{}, err
		}
		f = l.come[path]
	}
	delete(l.come, path)
	defer f.release()
	return l.onHost(p, f.host, rel, path, "")
}
