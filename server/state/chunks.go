package state

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"sync"

	"github.com/sheaf-run/agent/sheaf"
)

// MaxChunk is the largest chunk of a manifest, in bytes: with its envelope
// it fits a command.
const MaxChunk = 63 << 10

// ChunkStore holds the bytes of shard manifests, a byte string for each run
// and split attempt. The state machine alone writes; reads may come from any goroutine.
type ChunkStore interface {
	// Put writes data at offset. Writing the same again is harmless.
	Put(run sheaf.RunID, attempt uint32, offset int64, data []byte) error
	// Get reads length bytes at offset. Bytes that are not there are an error.
	Get(run sheaf.RunID, attempt uint32, offset int64, length uint32) ([]byte, error)
	// Delete removes every attempt's bytes of a run but keep's (0 keeps none).
	Delete(run sheaf.RunID, keep uint32) error
	// Retain deletes the runs for which keep says false.
	Retain(keep func(sheaf.RunID) bool) error
	// Sync returns once all that was put is durable.
	Sync() error
}

// Chunk reads chunk seq of a run's manifest and checks it against the index.
func (s *Store) Chunk(r *Run, seq int) ([]byte, error) {
	if seq < 0 || seq >= len(r.Manifest.Chunks) {
		return nil, &sheaf.Error{Class: sheaf.NotFound, Msg: fmt.Sprintf("run %s has no chunk %d of its manifest, but %d", r.ID, seq, len(r.Manifest.Chunks))}
	}
	c := r.Manifest.Chunks[seq]
	b, err := s.chunks.Get(r.ID, r.Manifest.Attempt, c.Offset, c.Length)
	if err != nil {
		return nil, fmt.Errorf("read chunk %d of the manifest of %s: %w", seq, r.ID, err)
	}
	if sha256.Sum256(b) != c.Digest {
		return nil, &sheaf.Error{Class: sheaf.Internal, Msg: fmt.Sprintf("chunk %d of the manifest of run %s, split attempt %d, is damaged on disk", seq, r.ID, r.Manifest.Attempt),
			Hint: "stop this server, move its data directory away and let it join again"}
	}
	return b, nil
}

// ChunkOf is the chunk in which partition i begins, for a sealed manifest.
func (r *Run) ChunkOf(i int) int {
	at, ok := slices.BinarySearchFunc(r.Manifest.Chunks, uint32(i), func(c Chunk, p uint32) int {
		switch {
		case c.First+c.Count <= p:
			return -1
		case c.First > p:
			return 1
		}
		return 0
	})
	if !ok {
		panic(fmt.Sprintf("state: the manifest of %s has no partition %d", r.ID, i))
	}
	return at
}

// MemoryChunks is a ChunkStore that forgets with the process.
type MemoryChunks struct {
	mu   sync.RWMutex
	runs map[sheaf.RunID]map[uint32][]byte
}

// Put implements ChunkStore.
func (m *MemoryChunks) Put(run sheaf.RunID, attempt uint32, offset int64, data []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.runs == nil {
		m.runs = map[sheaf.RunID]map[uint32][]byte{}
	}
	if m.runs[run] == nil {
		m.runs[run] = map[uint32][]byte{}
	}
	b := m.runs[run][attempt]
	if need := int(offset) + len(data); need > len(b) {
		b = append(b, make([]byte, need-len(b))...)
	}
	copy(b[offset:], data)
	m.runs[run][attempt] = b
	return nil
}

// Get implements ChunkStore.
func (m *MemoryChunks) Get(run sheaf.RunID, attempt uint32, offset int64, length uint32) ([]byte, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	b := m.runs[run][attempt]
	if end := offset + int64(length); offset < 0 || end > int64(len(b)) {
		return nil, fmt.Errorf("bytes %d to %d of %d", offset, end, len(b))
	}
	return slices.Clone(b[offset : offset+int64(length)]), nil
}

// Delete implements ChunkStore.
func (m *MemoryChunks) Delete(run sheaf.RunID, keep uint32) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for a := range m.runs[run] {
		if a != keep {
			delete(m.runs[run], a)
		}
	}
	if len(m.runs[run]) == 0 {
		delete(m.runs, run)
	}
	return nil
}

// Retain implements ChunkStore.
func (m *MemoryChunks) Retain(keep func(sheaf.RunID) bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for run := range m.runs {
		if !keep(run) {
			delete(m.runs, run)
		}
	}
	return nil
}

// Sync implements ChunkStore.
func (m *MemoryChunks) Sync() error { return nil }
