package car

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/ipfs/go-cid"
)

const (
	// maxStack is how much of the names in open directories is held in memory, in bytes: some 40,000.
	maxStack = 4 << 20
	// maxName bounds a name that is read back, in bytes: more than any file system has.
	maxName = 64 << 10
)

// entry is a name in a directory.
type entry struct {
	name string
	cid  cid.Cid
	size uint64 // of its blocks and all below
}

func (e entry) append(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(e.name)))
	b = append(b, e.name...)
	b = binary.AppendUvarint(b, e.size)
	b = binary.AppendUvarint(b, uint64(e.cid.ByteLen()))
	return append(b, e.cid.Bytes()...)
}

func readEntry(r *bufio.Reader) (e entry, err error) {
	text := func() []byte {
		var n uint64
		if n, err = binary.ReadUvarint(r); err != nil {
			return nil
		}
		if n > maxName {
			err = fmt.Errorf("a name of %d bytes", n)
			return nil
		}
		b := make([]byte, n)
		if _, err = io.ReadFull(r, b); err != nil {
			return nil
		}
		return b
	}
	name := text()
	if err != nil {
		return e, err // io.EOF at the end
	}
	e.name = string(name)
	if e.size, err = binary.ReadUvarint(r); err == nil {
		if c := text(); err == nil {
			e.cid, err = cid.Cast(c)
		}
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return e, err
}

// stack holds the names in open directories. A directory is closed before the one above it, so that
// what was pushed last goes first. What it holds in memory is bounded; what is below that lies in a file.
type stack struct {
	dir  string
	file *os.File
	kept int64  // bytes in the file
	mem  []byte // what stands above them
}

// newStack makes a stack whose file is in dir and has no name.
func newStack(dir string) (*stack, error) {
	f, err := nameless(dir)
	return &stack{dir: dir, file: f}, err
}

func nameless(dir string) (*os.File, error) {
	f, err := os.CreateTemp(dir, "car-*")
	if err != nil {
		return nil, fmt.Errorf("spool names for a CAR: %w", err)
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(fmt.Errorf("spool names for a CAR: %w", err), f.Close())
	}
	return f, nil
}

func (s *stack) end() int64 { return s.kept + int64(len(s.mem)) }

func (s *stack) push(e entry) error {
	if s.mem = e.append(s.mem); len(s.mem) < maxStack {
		return nil
	}
	if _, err := s.file.WriteAt(s.mem, s.kept); err != nil {
		return fmt.Errorf("spool names for a CAR: %w", err)
	}
	s.kept, s.mem = s.end(), s.mem[:0]
	return nil
}

// each gives what was pushed from a place on.
func (s *stack) each(start int64, yield func(entry) error) error {
	var r io.Reader = bytes.NewReader(s.mem[max(0, start-s.kept):])
	if start < s.kept {
		r = io.MultiReader(io.NewSectionReader(s.file, start, s.kept-start), r)
	}
	b := bufio.NewReader(r)
	for {
		e, err := readEntry(b)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the names for a CAR: %w", err)
		}
		if err := yield(e); err != nil {
			return err
		}
	}
}

// from is what was pushed from a place on.
func (s *stack) from(start int64) (all []entry, err error) {
	err = s.each(start, func(e entry) error {
		all = append(all, e)
		return nil
	})
	return all, err
}

// pop gives up what was pushed from a place on.
func (s *stack) pop(start int64) error {
	if start >= s.kept {
		s.mem = s.mem[:start-s.kept]
		return nil
	}
	s.kept, s.mem = start, s.mem[:0]
	return s.file.Truncate(start)
}

func (s *stack) close() error { return s.file.Close() }
