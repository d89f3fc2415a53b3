package consensus

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sync"
	"syscall"

	"github.com/hashicorp/raft"
)

// Entries and values of the store carry sums of ours: the store below does not
// notice a flipped byte. The sum stands in an entry's Extensions, which nothing else uses, as a format byte and a
// CRC-32C over all other fields.
const (
	sumFormat = 1
	sumSize   = 5
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// store is what holds entries and votes: raft-boltdb's, or raft's own in memory.
type store interface {
	raft.LogStore
	raft.StableStore
}

// checkedStore adds and checks sums, counts bytes, and tells a full disk from
// a broken one. raft calls it from several goroutines.
type checkedStore struct {
	under   store
	name    string // the file, for errors
	fatal   func(error)
	grown   func()                   // called after entries were appended
	servers func(raft.Configuration) // unless nil, told of each configuration that is appended

	mu    sync.Mutex
	sizes sizeIndex
}

func entrySum(l *raft.Log) [sumSize]byte {
	var fixed [8 + 8 + 1 + 8]byte
	binary.BigEndian.PutUint64(fixed[0:], l.Index)
	binary.BigEndian.PutUint64(fixed[8:], l.Term)
	fixed[16] = byte(l.Type)
	if !l.AppendedAt.IsZero() {
		binary.BigEndian.PutUint64(fixed[17:], uint64(l.AppendedAt.UnixNano()))
	}
	crc := crc32.Update(0, castagnoli, fixed[:])
	crc = crc32.Update(crc, castagnoli, l.Data)
	sum := [sumSize]byte{sumFormat}
	binary.BigEndian.PutUint32(sum[1:], crc)
	return sum
}

// FirstIndex is the index of the oldest entry, 0 when there is none.
func (s *checkedStore) FirstIndex() (uint64, error) { return s.under.FirstIndex() }

// LastIndex is the index of the newest entry, 0 when there is none.
func (s *checkedStore) LastIndex() (uint64, error) { return s.under.LastIndex() }

// GetLog reads an entry and checks its sum.
func (s *checkedStore) GetLog(index uint64, l *raft.Log) error {
	if err := s.under.GetLog(index, l); errors.Is(err, raft.ErrLogNotFound) {
		return err
	} else if err != nil {
		return damaged(s.name, fmt.Sprintf("entry %d", index), err)
	}
	ext := l.Extensions
	l.Extensions = nil
	if l.Index != index || len(ext) != sumSize || [sumSize]byte(ext) != entrySum(l) {
		return damaged(s.name, fmt.Sprintf("entry %d", index), errSum)
	}
	return nil
}

// StoreLog appends one entry.
func (s *checkedStore) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

// StoreLogs appends entries; they are durable when it returns. The entries
// given stay as they are: raft's cache keeps them.
func (s *checkedStore) StoreLogs(logs []*raft.Log) error {
	summed := make([]*raft.Log, len(logs))
	copies := make([]raft.Log, len(logs))
	sums := make([][sumSize]byte, len(logs))
	for i, l := range logs {
		if len(l.Extensions) != 0 {
			return fmt.Errorf("append entry %d to %s: it has extensions that no server of ours adds", l.Index, s.name)
		}
		copies[i], sums[i] = *l, entrySum(l)
		copies[i].Extensions = sums[i][:]
		summed[i] = &copies[i]
	}
	if err := s.under.StoreLogs(summed); err != nil {
		return s.writeFailed("append entries", err)
	}
	s.mu.Lock()
	for _, l := range logs {
		s.sizes.append(l.Index, entryBytes(l))
	}
	s.mu.Unlock()
	s.grown()
	for _, l := range logs {
		if l.Type == raft.LogConfiguration && s.servers != nil {
			s.servers(raft.DecodeConfiguration(l.Data))
		}
	}
	return nil
}

// DeleteRange removes the entries min to max, at either end of the log.
func (s *checkedStore) DeleteRange(minIndex, maxIndex uint64) error {
	if err := s.under.DeleteRange(minIndex, maxIndex); err != nil {
		return s.writeFailed("delete entries", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sizes.delete(minIndex, maxIndex)
	return nil
}

// writeFailed lets a full disk pass as an error that raft recovers from, and
// ends the process for any other: after a failed sync nobody knows what is durable.
func (s *checkedStore) writeFailed(step string, err error) error {
	err = fmt.Errorf("%s to %s: %w", step, s.name, err)
	if !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EDQUOT) {
		s.fatal(err)
	}
	return err
}

// Set stores a value with its sum.
func (s *checkedStore) Set(key, value []byte) error {
	crc := crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, value)
	summed := binary.BigEndian.AppendUint32(append([]byte{sumFormat}, value...), crc)
	if err := s.under.Set(key, summed); err != nil {
		return s.writeFailed("store "+string(key), err)
	}
	return nil
}

// Get reads a value and checks its sum. A missing one is the error "not found",
// which raft knows by its text.
func (s *checkedStore) Get(key []byte) ([]byte, error) {
	b, err := s.under.Get(key)
	if err != nil {
		return nil, err
	}
	if len(b) < sumSize || b[0] != sumFormat {
		return nil, damaged(s.name, fmt.Sprintf("value %q", key), errSum)
	}
	value := b[1 : len(b)-4]
	if crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, value) != binary.BigEndian.Uint32(b[len(b)-4:]) {
		return nil, damaged(s.name, fmt.Sprintf("value %q", key), errSum)
	}
	return value, nil
}

// SetUint64 stores a number with its sum.
func (s *checkedStore) SetUint64(key []byte, v uint64) error {
	return s.Set(key, binary.BigEndian.AppendUint64(nil, v))
}

// GetUint64 reads a number and checks its sum.
func (s *checkedStore) GetUint64(key []byte) (uint64, error) {
	b, err := s.Get(key)
	if err != nil {
		return 0, err
	}
	if len(b) != 8 {
		return 0, damaged(s.name, fmt.Sprintf("value %q", key), errSum)
	}
	return binary.BigEndian.Uint64(b), nil
}

// Close closes the store below, if it can be.
func (s *checkedStore) Close() error {
	if c, ok := s.under.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

// scan reads everything once: each entry from first to last must be there and match its sum. Only up to
// covered, the end of the newest snapshot, may entries be missing: one that was restored begins behind a gap. It gives the newest configuration in the log, if any, and notes sizes.
func (s *checkedStore) scan(covered uint64) (*raft.Configuration, error) {
	for _, key := range []string{"CurrentTerm", "LastVoteTerm", "LastVoteCand"} {
		if _, err := s.Get([]byte(key)); err != nil && err.Error() != "not found" {
			return nil, err
		}
	}
	first, err := s.FirstIndex()
	if err != nil {
		return nil, damaged(s.name, "the first entry", err)
	}
	last, err := s.LastIndex()
	if err != nil {
		return nil, damaged(s.name, "the last entry", err)
	}
	var newest *raft.Configuration
	for i := first; i != 0 && i <= last; i++ {
		var l raft.Log
		if err := s.GetLog(i, &l); errors.Is(err, raft.ErrLogNotFound) {
			if i <= covered {
				continue
			}
			return nil, damaged(s.name, fmt.Sprintf("entry %d", i), errors.New("it is missing"))
		} else if err != nil {
			return nil, err
		}
		s.sizes.append(i, entryBytes(&l))
		if l.Type == raft.LogConfiguration && i > covered { // the snapshot has those before
			c := raft.DecodeConfiguration(l.Data)
			newest = &c
		}
	}
	return newest, nil
}

// scanGuarded is scan, with whatever the store below may panic with as an error.
func (s *checkedStore) scanGuarded(covered uint64) (c *raft.Configuration, err error) {
	defer func() {
		if r := recover(); r != nil {
			c, err = nil, damaged(s.name, "the file", fmt.Errorf("%v", r))
		}
	}()
	return s.scan(covered)
}

func entryBytes(l *raft.Log) int64 { return int64(len(l.Data)) + entryOverhead }

// since is how many bytes of entries lie above index.
func (s *checkedStore) since(index uint64) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sizes.since(index)
}

// countWithin is how many of the newest entries fit into that many bytes.
func (s *checkedStore) countWithin(limit int64) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sizes.countWithin(limit)
}
