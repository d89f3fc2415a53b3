package unixfs

import (
	"slices"
	"sync"

	"github.com/ipfs/go-cid"
)

// maxKept is how many names of directories are kept for the next look at them.
const maxKept = 1_000_000

// directories are those that were read last.
type directories struct {
	mu    sync.Mutex
	all   map[cid.Cid][]child
	order []cid.Cid
	names int
}

func (d *directories) get(c cid.Cid) ([]child, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	all, ok := d.all[c]
	return all, ok
}

// put keeps a directory, in the place of the oldest where there are too many.
func (d *directories) put(c cid.Cid, all []child) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, ok := d.all[c]; ok || len(all) > maxKept {
		return
	}
	if d.all == nil {
		d.all = map[cid.Cid][]child{}
	}
	for d.names+len(all)+len(d.order) > maxKept {
		oldest := d.order[0]
		d.order = slices.Delete(d.order, 0, 1)
		d.names -= len(d.all[oldest])
		delete(d.all, oldest)
	}
	d.all[c] = all
	d.order = append(d.order, c)
	d.names += len(all)
}
