package wasm

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
)

// The protocol between driver and worker: frames over two pipes, each a length
// (uvarint), a kind (one byte) and a body of uvarints and strings. The driver
// sends setup first, then load or run, one at a time; the worker says that it is ready, once, and answers a load
// with loaded, and a run with logs and then one exit.

// maxFrame bounds a frame: a job is at most 1 MiB, and its env and args are
// expanded into one.
const maxFrame = 4 << 20

type kind byte

const (
	kindSetup kind = iota + 1
	kindLoad
	kindRun
	kindLoaded
	kindLog
	kindExit
	kindReady
)

// appendFrame appends a frame to b; body appends its body.
func appendFrame(b []byte, k kind, body func([]byte) []byte) []byte {
	start := len(b)
	b = append(b, 0, 0, 0, 0, byte(k))
	b = body(b)
	// The length is a uvarint of four bytes, so that it can be filled in afterwards.
	n := uint32(len(b) - start - 4)
	b[start] = byte(n) | 0x80
	b[start+1] = byte(n>>7) | 0x80
	b[start+2] = byte(n>>14) | 0x80
	b[start+3] = byte(n >> 21 & 0x7f)
	return b
}

// frameReader reads frames; the body that next returns is valid until the next call.
type frameReader struct {
	r   *bufio.Reader
	buf []byte
}

func newFrameReader(r io.Reader, size int) *frameReader {
	return &frameReader{r: bufio.NewReaderSize(r, size)}
}

// next reads a frame. The error is io.EOF only between frames.
func (f *frameReader) next() (kind, []byte, error) {
	n, err := binary.ReadUvarint(f.r)
	if err != nil {
		return 0, nil, err
	}
	if n == 0 || n > maxFrame {
		return 0, nil, fmt.Errorf("frame of %d bytes (limit %d)", n, maxFrame)
	}
	if uint64(cap(f.buf)) < n {
		f.buf = make([]byte, n)
	}
	b := f.buf[:n]
	if _, err := io.ReadFull(f.r, b); err != nil {
		return 0, nil, io.ErrUnexpectedEOF
	}
	return kind(b[0]), b[1:], nil
}

// peekLog reports whether a whole log frame of the stream with at most limit
// bytes of data is already in the buffer.
func (f *frameReader) peekLog(stream byte, limit int) bool {
	head, err := f.r.Peek(min(f.r.Buffered(), binary.MaxVarintLen64+2))
	if err != nil {
		return false
	}
	n, used := binary.Uvarint(head)
	if used <= 0 || n < 2 || n > maxFrame || len(head) < used+2 {
		return false
	}
	return kind(head[used]) == kindLog && head[used+1] == stream && int(n)-2 <= limit && f.r.Buffered() >= used+int(n)
}

func appendBool(b []byte, v bool) []byte {
	if v {
		return append(b, 1)
	}
	return append(b, 0)
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendStrings(b []byte, list []string) []byte {
	b = binary.AppendUvarint(b, uint64(len(list)))
	for _, s := range list {
		b = appendString(b, s)
	}
	return b
}

// decoder takes values off a body. After the first malformed one it gives zero
// values, and end tells.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) uint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) int() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) bool() bool { return d.uint() == 1 }

// count is the length of a list; each element takes at least a byte, so more than is left is malformed.
func (d *decoder) count() uint64 {
	n := d.uint()
	if n > uint64(len(d.b)) {
		d.fail()
		return 0
	}
	return n
}

func (d *decoder) string() string { return d.stringLike("") }

// stringLike is string, and gives last if it is that: a comparison copies nothing.
func (d *decoder) stringLike(last string) string {
	n := d.count()
	s := last
	if string(d.b[:n]) != last {
		s = string(d.b[:n])
	}
	d.b = d.b[n:]
	return s
}

func (d *decoder) strings() []string { return d.stringsLike(nil) }

// stringsLike is strings, and takes those that last has at the same place from there.
func (d *decoder) stringsLike(last []string) []string {
	n := d.count()
	if n == 0 {
		return nil
	}
	list := make([]string, 0, n)
	for ; n > 0 && !d.bad; n-- {
		like := ""
		if len(list) < len(last) {
			like = last[len(list)]
		}
		list = append(list, d.stringLike(like))
	}
	return list
}

func (d *decoder) fail() { d.b, d.bad = nil, true }

func (d *decoder) end() error {
	if d.bad || len(d.b) > 0 {
		return fmt.Errorf("malformed frame: %d bytes left over", len(d.b))
	}
	return nil
}
