package source

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/sheaf-run/agent/sheaf"
)

// maxAhead is how many entries the readers may have read that are not yet
// handed out, beside the directories on the way to the next one: a few MB.
const maxAhead = 1 << 16

// readersPerProcessor is more than one, since a reader waits for the file system now and then, even where all is in
// memory: a million files there are listed in 0.85 of the time that one a processor takes.
const (
	readersPerProcessor = 4
	maxReaders          = 64 // each has a buffer
)

// walk lists a source in order. Several readers work on the directories that
// come next in the order, and the caller's goroutine hands out what they
// read. When they are as far ahead as they may be it reads the next directory itself,
// so that there is always progress.
func walk(ctx context.Context, s *fileSource, scope Scope, yield func([]sheaf.Entry) error) error {
	w := &walker{source: s, descend: scope.Descend, yield: yield, scratch: make([]byte, direntBuffer)}
	w.wake.L = &w.mu
	w.root = newNode(scope.Below)
	w.unread = append(w.unread, w.root)

	var readers sync.WaitGroup
	for range min(maxReaders, readersPerProcessor*runtime.GOMAXPROCS(0)) {
		readers.Go(w.read)
	}
	stop := context.AfterFunc(ctx, w.stop)
	err := w.emit(ctx, w.root)
	if err == nil {
		err = w.flush(ctx)
	}
	stop()
	w.stop()
	readers.Wait()
	return err
}

// node is a directory that is to be listed.
type node struct {
	path    string // relative to the root
	claimed atomic.Bool
	read    chan struct{} // closed when the rest is set

	*listing
	err  error
	dirs []*node // its directories that are descended, in order of their items
}

func newNode(path string) *node { return &node{path: path, read: make(chan struct{})} }

type walker struct {
	source  *fileSource
	root    *node
	descend func(string) bool
	yield   func([]sheaf.Entry) error
	scratch []byte // the caller's; each reader has its own

	mu      sync.Mutex
	wake    sync.Cond // something to read, room to read it, or the end
	unread  []*node   // directories nobody claimed when they were put here, the next one last
	ahead   int       // entries read and not begun to be handed out
	stopped bool

	batch []sheaf.Entry // the caller's from here on
	paths []byte        // of the batch
	ends  []int         // of each path in paths
}

func (w *walker) stop() {
	w.mu.Lock()
	w.stopped = true
	w.mu.Unlock()
	w.wake.Broadcast()
}

// read is what each reader does until the walk stops.
func (w *walker) read() {
	scratch := make([]byte, direntBuffer)
	for {
		w.mu.Lock()
		for !w.stopped && (len(w.unread) == 0 || w.ahead > maxAhead) {
			w.wake.Wait()
		}
		if w.stopped {
			w.mu.Unlock()
			return
		}
		n := w.unread[len(w.unread)-1]
		w.unread = w.unread[:len(w.unread)-1]
		w.mu.Unlock()
		if n.claimed.CompareAndSwap(false, true) {
			w.load(n, scratch)
		}
	}
}

// load reads a claimed directory and queues those in it.
func (w *walker) load(n *node, scratch []byte) {
	defer close(n.read)
	n.listing, n.err = w.source.readDir(n.path, scratch)
	if n != w.root && errors.Is(n.err, fs.ErrNotExist) {
		n.err, n.listing = nil, &listing{} // it vanished since its own directory was read
	}
	if n.err != nil {
		n.listing = &listing{}
		return
	}
	for i := range n.items {
		if n.items[i].kind != sheaf.EntryDir {
			continue
		}
		var dir *node
		if path := join(n.path, n.name(i)); w.descend == nil || w.descend(path) {
			dir = newNode(path)
		}
		n.dirs = append(n.dirs, dir)
	}
	w.mu.Lock()
	w.ahead += len(n.items)
	for i := len(n.dirs) - 1; i >= 0; i-- {
		if n.dirs[i] != nil {
			w.unread = append(w.unread, n.dirs[i])
		}
	}
	w.mu.Unlock()
	w.wake.Broadcast()
}

// emit hands out what lies in a directory. The content of a directory "a"
// stands where "a/" does, behind siblings such as "a-b" and "a.txt".
func (w *walker) emit(ctx context.Context, n *node) error {
	if n.claimed.CompareAndSwap(false, true) {
		w.load(n, w.scratch)
	}
	select {
	case <-n.read:
	case <-ctx.Done():
	}
	if err := ctx.Err(); err != nil { // also where both had come: a listing that was given up does not go on
		return err
	}
	if n.err != nil {
		where := n.path
		if where == "" {
			where = w.source.real
		}
		return stepError(fmt.Sprintf("list %s", quote(where)), "", n.err)
	}
	w.mu.Lock()
	if w.ahead -= len(n.items); w.ahead <= maxAhead {
		w.wake.Broadcast()
	}
	w.mu.Unlock()

	type pending struct {
		name string
		dir  *node
	}
	var held []pending // directories whose content still comes, the next one last
	dirs := n.dirs
	for i := range n.items {
		name := n.name(i)
		for len(held) > 0 && !beforeContent(name, held[len(held)-1].name) {
			next := held[len(held)-1].dir
			held = held[:len(held)-1]
			if err := w.emit(ctx, next); err != nil {
				return err
			}
		}
		if err := w.put(ctx, n.path, name, &n.items[i].fileStat); err != nil {
			return err
		}
		if n.items[i].kind == sheaf.EntryDir {
			if dirs[0] != nil {
				held = append(held, pending{name, dirs[0]})
			}
			dirs = dirs[1:]
		}
	}
	n.dirs = nil // what was handed out is let go
	for len(held) > 0 {
		next := held[len(held)-1].dir
		held = held[:len(held)-1]
		if err := w.emit(ctx, next); err != nil {
			return err
		}
	}
	return nil
}

// beforeContent reports whether name, which sorts behind its sibling dir, sorts before dir+"/".
func beforeContent(name, dir string) bool {
	return len(name) > len(dir) && name[:len(dir)] == dir && name[len(dir)] < '/'
}

// put adds an entry to the batch.
func (w *walker) put(ctx context.Context, dir, name string, st *fileStat) error {
	if dir != "" {
		w.paths = append(append(w.paths, dir...), '/')
	}
	w.paths = append(w.paths, name...)
	w.ends = append(w.ends, len(w.paths))
	e := sheaf.Entry{Kind: st.kind}
	if st.kind == sheaf.EntryFile {
		e.Size, e.MTime = st.size, st.mtime
	}
	w.batch = append(w.batch, e)
	if len(w.batch) < BatchEntries {
		return nil
	}
	return w.flush(ctx)
}

// flush yields the batch, whose paths share one string.
func (w *walker) flush(ctx context.Context) error {
	if err := ctx.Err(); err != nil || len(w.batch) == 0 {
		return err
	}
	paths, from := string(w.paths), 0
	for i, end := range w.ends {
		w.batch[i].Path = paths[from:end]
		from = end
	}
	err := w.yield(w.batch)
	w.batch, w.paths, w.ends = w.batch[:0], w.paths[:0], w.ends[:0]
	return err
}
