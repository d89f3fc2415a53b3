package split

import (
	"context"
	"fmt"
	"os"
	"sync"

	"github.com/sheaf-run/agent/data/shard"
)

// spool holds the chunks of a manifest that is being made, for one writer and
// one reader, in a file that has no name any more.
type spool struct {
	file *os.File

	mu      sync.Mutex
	chunks  []entry
	size    int64
	done    bool // no more come
	changed chan struct{}
}

type entry struct {
	offset       int64
	length       int32
	first, count uint32
}

func newSpool(dir string) (*spool, error) {
	f, err := os.CreateTemp(dir, "manifest-*")
	if err != nil {
		return nil, fmt.Errorf("spool the shard manifest: %w", err)
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, fmt.Errorf("spool the shard manifest: %w", err)
	}
	return &spool{file: f, changed: make(chan struct{})}, nil
}

func (s *spool) close() { s.file.Close() }

// add appends the next chunk.
func (s *spool) add(c shard.Chunk) error {
	if _, err := s.file.WriteAt(c.Data, s.size); err != nil {
		return fmt.Errorf("spool the shard manifest: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.chunks = append(s.chunks, entry{s.size, int32(len(c.Data)), uint32(c.First), uint32(c.Count)})
	s.size += int64(len(c.Data))
	s.signal()
	return nil
}

// end says that all chunks are there.
func (s *spool) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done = true
	s.signal()
}

func (s *spool) signal() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// get reads chunk i, waiting for it. There is none when it lies behind the last.
func (s *spool) get(ctx context.Context, i int) (e entry, data []byte, ok bool, err error) {
	for {
		s.mu.Lock()
		n, done, changed := len(s.chunks), s.done, s.changed
		if i < n {
			e = s.chunks[i]
		}
		s.mu.Unlock()
		switch {
		case i < n:
			data = make([]byte, e.length)
			if _, err := s.file.ReadAt(data, e.offset); err != nil {
				return e, nil, false, fmt.Errorf("read the spooled shard manifest: %w", err)
			}
			return e, data, true, nil
		case done:
			return e, nil, false, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return e, nil, false, ctx.Err()
		}
	}
}
