package output

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/sheaf-run/agent/sheaf"
)

const (
	// maxHeld is how long a line of a merged manifest may be that is held as a whole, in bytes: some four hundred parts.
	maxHeld = 64 << 10
	// maxLine is the longest line of a manifest, in bytes: a file joined of a million parts.
	maxLine = 256 << 20
)

// Line is one file of a merged manifest. Its parts are read when they are wanted: a file may be joined of all
// partitions of a run.
type Line struct {
	sheaf.File       // without its parts
	Count      int   // of them
	PartBytes  int64 // the sum of their sizes; -1 where they make no sense
	held       []sheaf.Part
	from       *io.SectionReader // the line, where held is nil
}

// Lines reads a merged manifest, JSON lines of sheaf.File in any order, of `size` bytes. It holds a bounded piece of it.
// What the lines say is checked no further. They may be used concurrently, for as long as the manifest is there.
func Lines(manifest io.ReaderAt, size int64, fn func(*Line) error) error {
	buf := bufio.NewReaderSize(io.NewSectionReader(manifest, 0, size), maxHeld)
	for n, at := 1, int64(0); ; n++ {
		begin := at
		text, err := buf.ReadSlice('\n')
		for at += int64(len(text)); errors.Is(err, bufio.ErrBufferFull) && at-begin <= maxLine; at += int64(len(text)) {
			text, err = buf.ReadSlice('\n')
		}
		if errors.Is(err, io.EOF) {
			if err = nil; at == begin {
				return nil
			}
		}
		l := &Line{}
		switch {
		case err != nil:
		case at-begin > int64(len(text)):
			l.from = io.NewSectionReader(manifest, begin, at-begin)
			err = l.long()
		default:
			err = l.short(text)
		}
		if err == nil {
			err = fn(l)
		}
		if err != nil {
			return fmt.Errorf("merged manifest, line %d: %w", n, err)
		}
	}
}

func (l *Line) short(text []byte) error {
	if err := json.Unmarshal(text, &l.File); err != nil {
		return err
	}
	l.held, l.Parts = l.Parts, nil
	for _, p := range l.held {
		l.count(p)
	}
	return nil
}

// long reads all of a line but its parts, which are counted.
func (l *Line) long() error {
	rest := map[string]json.RawMessage{}
	if err := l.read(func(p sheaf.Part) error { l.count(p); return nil }, rest); err != nil {
		return err
	}
	b, err := json.Marshal(rest)
	if err != nil {
		return err
	}
	return json.Unmarshal(b, &l.File)
}

func (l *Line) count(p sheaf.Part) {
	l.Count++
	if l.PartBytes < 0 || p.Size < 0 || p.Size > math.MaxInt64-l.PartBytes {
		l.PartBytes = -1
		return
	}
	l.PartBytes += p.Size
}

// Each calls fn for the parts, in order.
func (l *Line) Each(fn func(sheaf.Part) error) error {
	if l.from != nil {
		return l.read(fn, nil)
	}
	for _, p := range l.held {
		if err := fn(p); err != nil {
			return err
		}
	}
	return nil
}

// read goes through a long line; what else it says is noted in rest.
func (l *Line) read(part func(sheaf.Part) error, rest map[string]json.RawMessage) error {
	dec := json.NewDecoder(io.NewSectionReader(l.from, 0, l.from.Size()))
	if err := enter(dec, '{'); err != nil {
		return err
	}
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return err
		}
		if name, _ := key.(string); name != "parts" {
			var value json.RawMessage
			if err := dec.Decode(&value); err != nil {
				return err
			}
			if rest != nil {
				rest[name] = value
			}
			continue
		}
		if err := enter(dec, '['); err != nil {
			return err
		}
		for dec.More() {
			var p sheaf.Part
			if err := dec.Decode(&p); err != nil {
				return err
			}
			if err := part(p); err != nil {
				return err
			}
		}
		if err := enter(dec, ']'); err != nil {
			return err
		}
	}
	return enter(dec, '}')
}

func enter(dec *json.Decoder, want json.Delim) error {
	got, err := dec.Token()
	if err == nil && got != want {
		err = fmt.Errorf("%v where a %v should be", got, want)
	}
	return err
}
