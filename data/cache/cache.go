// Package cache keeps files that were fetched from far, by what they are, so that
// the executions of a node share them. It owns its directory. What is fetched by
// several at once is fetched once; what nobody uses goes, the least recently used
// first, when the limit is passed. What is in use never goes.
//
// A file counts once it is complete and has the size that was promised. Nothing is synced: after
// a crash of the machine a file of another size is thrown away and fetched again.
package cache

import (
	"container/list"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// Key names a content: where it comes from and its identity there, or its
// digest alone.
type Key struct {
	Source   string // "" where Identity is a digest
	Identity string
	Size     int64  // bytes; [Unknown] where only what is fetched tells
	Origin   string // of sheaf.Origin; no part of what the content is
}

// Unknown is the size of a content that is not known before it was fetched.
const Unknown = -1

// KeyOf is the key of a file of a source. Equal digests are equal content, wherever they come from; other
// identities mean something in their source only.
func KeyOf(source, identity string, size int64) Key {
	if strings.HasPrefix(identity, "sha256:") || strings.HasPrefix(identity, "cid:") {
		source = ""
	}
	return Key{Source: source, Identity: identity, Size: size}
}

// digest names the key.
func (k Key) digest() string {
	text := k.Source + "\x00" + k.Identity
	if k.Size != Unknown {
		text += "\x00" + fmt.Sprint(k.Size)
	}
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// part ends the name of a file that is not complete.
const part = ".part"

// Cache is a directory of fetched files. Its methods may be called concurrently.
type Cache struct {
	dir   string
	limit int64 // bytes

	mu    sync.Mutex
	files map[string]*file // by digest of the key
	idle  *list.List       // of *file not in use, the most recently used first
	bytes int64            // of all complete files
	held  map[string]int64 // bytes of those with an origin, by it
	stats Stats
}

// Stats counts what became of requests.
type Stats struct {
	Hits, Misses, Evicted uint64
	Files                 int
	Bytes                 int64
}

// file is one file: being fetched, or complete.
type file struct {
	digest string
	origin string
	size   int64 // Unknown until it is complete, where the key does not say
	uses   int
	idle   *list.Element // nil while in use
	ready  chan struct{} // closed when fetching has ended
	err    error         // why it failed; it is forgotten then
}

// name is the file's name in the cache: the digest of its key, the size, so
// that a file that was cut is known, and where it was first fetched from.
func (f *file) name() string { return f.digest + "-" + fmt.Sprint(f.size) + "-" + f.origin }

// Open takes over a directory, which it makes if needed, with the files that lie
// there from before. limit is in bytes.
func Open(dir string, limit int64) (*Cache, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open the cache: %w", err)
	}
	dir, err := filepath.EvalSymlinks(dir) // who links to its files follows no link
	if err != nil {
		return nil, fmt.Errorf("open the cache: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("open the cache: %w", err)
	}
	c := &Cache{dir: dir, limit: limit, files: map[string]*file{}, idle: list.New(), held: map[string]int64{}}
	var found []os.FileInfo
	for _, e := range entries {
		info, err := e.Info()
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("open the cache: %w", err)
		}
		parts := strings.Split(e.Name(), "-")
		if len(parts) != 3 || len(parts[0]) != hex.EncodedLen(sha256.Size) || parts[1] != fmt.Sprint(info.Size()) || !info.Mode().IsRegular() {
			if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
				return nil, fmt.Errorf("clean the cache: %w", err)
			}
			continue
		}
		found = append(found, info)
	}
	slices.SortFunc(found, func(a, b os.FileInfo) int { return a.ModTime().Compare(b.ModTime()) })
	done := make(chan struct{})
	close(done)
	for _, info := range found {
		parts := strings.Split(info.Name(), "-")
		f := &file{digest: parts[0], origin: parts[2], size: info.Size(), ready: done}
		f.idle = c.idle.PushFront(f)
		c.files[f.digest] = f
		c.count(f, f.size)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c, c.evict()
}

// Fetch writes the content of a key to w. One that ends early is an error.
type Fetch func(ctx context.Context, w io.Writer) error

// Get gives the path of a complete file with the key's content, fetching it unless it
// is there or somebody else fetches it. It stays until release is called, once. Several may wait
// for one fetch; when the one whose ctx it runs under gives up, another takes over.
func (c *Cache) Get(ctx context.Context, key Key, fetch Fetch) (path string, release func(), err error) {
	digest := key.digest()
	for {
		c.mu.Lock()
		f, mine := c.files[digest], false
		if f == nil {
			f, mine = &file{digest: digest, origin: key.Origin, size: key.Size, ready: make(chan struct{})}, true
			c.files[digest] = f
			c.stats.Misses++
		} else if f.idle != nil {
			c.idle.Remove(f.idle)
			f.idle = nil
		}
		f.uses++
		c.mu.Unlock()
		if mine {
			c.fetch(ctx, f, fetch)
		}
		select {
		case <-f.ready:
		case <-ctx.Done():
			c.release(f)
			return "", nil, ctx.Err()
		}
		if f.err == nil {
			if !mine {
				c.mu.Lock()
				c.stats.Hits++
				c.mu.Unlock()
			}
			return filepath.Join(c.dir, f.name()), sync.OnceFunc(func() { c.release(f) }), nil
		}
		c.release(f)
		if mine || ctx.Err() != nil || !errors.Is(f.err, context.Canceled) && !errors.Is(f.err, context.DeadlineExceeded) {
			return "", nil, f.err
		}
	}
}

// fetch makes the file, and tells those who wait for it.
func (c *Cache) fetch(ctx context.Context, f *file, fetch Fetch) {
	size, err := c.write(ctx, f, fetch)
	c.mu.Lock()
	defer c.mu.Unlock()
	defer close(f.ready)
	if f.err = err; err != nil {
		delete(c.files, f.digest)
		return
	}
	f.size = size
	c.count(f, size)
	f.err = c.evict()
}

// count adds bytes that have come, or are gone where negative. The caller holds the lock.
func (c *Cache) count(f *file, bytes int64) {
	c.bytes += bytes
	if f.origin == "" {
		return
	}
	if c.held[f.origin] += bytes; c.held[f.origin] <= 0 {
		delete(c.held, f.origin)
	}
}

// write fetches the content of f, of its size unless that is Unknown, and says how many bytes came.
func (c *Cache) write(ctx context.Context, f *file, fetch Fetch) (int64, error) {
	path, size := filepath.Join(c.dir, f.digest), f.size
	out, err := os.OpenFile(path+part, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return 0, fmt.Errorf("write to the cache: %w", err)
	}
	w := &counted{w: out, most: size}
	if size == Unknown {
		w.most = math.MaxInt64
	}
	err = fetch(ctx, w)
	if err == nil && size != Unknown && w.n != size {
		err = fmt.Errorf("%d bytes came, and %d were promised: %w", w.n, size, io.ErrUnexpectedEOF)
	}
	// Tasks link to it, and several see the one file: nobody may write to it.
	err = errors.Join(err, out.Chmod(0o444), out.Close())
	if err == nil {
		err = os.Rename(path+part, filepath.Join(c.dir, (&file{digest: f.digest, origin: f.origin, size: w.n}).name()))
	}
	if err != nil {
		return 0, errors.Join(err, os.Remove(path+part))
	}
	return w.n, nil
}

// errLonger is returned for a content that is longer than promised.
var errLonger = errors.New("more bytes came than were promised")

// counted lets no more through than was promised.
type counted struct {
	w       io.Writer
	n, most int64
}

func (c *counted) Write(p []byte) (int, error) {
	if int64(len(p)) > c.most-c.n {
		return 0, errLonger
	}
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// release ends one use of a file.
func (c *Cache) release(f *file) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.uses--; f.uses > 0 || c.files[f.digest] != f {
		return
	}
	f.idle = c.idle.PushFront(f)
	_ = c.evict() // what could not be removed is tried again with the next
}

// evict removes files that nobody uses until the limit holds. The caller holds the lock.
func (c *Cache) evict() error { return c.evictTo(c.limit) }

func (c *Cache) evictTo(limit int64) error {
	for c.bytes > limit && c.idle.Len() > 0 {
		f := c.idle.Back().Value.(*file)
		if err := os.Remove(filepath.Join(c.dir, f.name())); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("make room in the cache: %w", err)
		}
		c.idle.Remove(f.idle)
		delete(c.files, f.digest)
		c.count(f, -f.size)
		c.stats.Evicted++
	}
	return nil
}

// Shrink removes files that nobody uses, the least recently used first, until it has
// gained that many bytes or none is left. It returns how many it has gained.
func (c *Cache) Shrink(bytes int64) (gained int64, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.bytes
	err = c.evictTo(max(before-bytes, 0))
	return before - c.bytes, err
}

// Make gives the path of a file that is made once, from what name says in full; it goes like the others
// when nobody uses it, and is then made again. It stays until release is called, once.
func (c *Cache) Make(ctx context.Context, name string, make func(ctx context.Context, w io.Writer) error) (path string, release func(), err error) {
	return c.Get(ctx, Key{Source: "made", Identity: name, Size: Unknown}, make)
}

// Held is how many bytes it has of each origin, of sheaf.Origin.
func (c *Cache) Held() map[string]int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.held)
}

// Stats counts since Open.
func (c *Cache) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.stats
	s.Files, s.Bytes = len(c.files), c.bytes
	return s
}
