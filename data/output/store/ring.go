package store

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// ring holds the head and the tail of a log: the first headCap bytes stay,
// what follows goes round in tailCap+slack bytes, of which the last tailCap count. The slack is why a
// crash between writing bytes and noting it leaves no wrong ones in what counts.
// It lies in memory until it outgrows InlineLog, then in a file behind a head of ringHead bytes.
type ring struct {
	mem                     []byte
	f                       *os.File
	end                     int64 // bytes that the task wrote
	headCap, tailCap, slack int64
}

const (
	ringMagic = "SHEAFLG1"
	ringHead  = 48
	ringSlack = 64 << 10 // bytes: the largest piece that a driver sends
	leastRing = 64       // bytes that a ring needs to be of any use
)

func newRing(limit int64) ring {
	return ring{headCap: limit / 2, tailCap: limit - limit/2, slack: ringSlack}
}

func (g *ring) round() int64 { return g.tailCap + g.slack }

// tailStart is where what counts of the tail begins; headCap where nothing was cut.
func (g *ring) tailStart() int64 { return max(g.headCap, g.end-g.tailCap) }

func (g *ring) dropped() int64 { return max(0, g.end-g.tailCap-g.headCap) }

func (g *ring) wrapped() bool { return g.end > g.headCap+g.round() }

// place maps a byte of the log to where it lies, and says how many lie there in one piece.
func (g *ring) place(off int64) (at, n int64) {
	if off < g.headCap {
		return off, g.headCap - off
	}
	at = (off - g.headCap) % g.round()
	return g.headCap + at, g.round() - at
}

// write appends. name is the file to make when memory is not enough. Where the
// disk is full the ring goes on in the room it has.
func (g *ring) write(data []byte, name string) error {
	if g.f == nil && g.slack == ringSlack && g.end+int64(len(data)) > InlineLog {
		if err := g.spill(name); err != nil {
			if !full(err) {
				return err
			}
			g.mem = append(make([]byte, 0, InlineLog), g.mem...)[:InlineLog]
			g.shrink(InlineLog)
		}
	}
	for len(data) > 0 {
		if g.f == nil && g.slack == ringSlack {
			g.mem = append(g.mem, data...)
			g.end += int64(len(data))
			return nil
		}
		at, n := g.place(g.end)
		n = min(n, g.slack, int64(len(data)))
		if err := g.put(data[:n], at); err != nil {
			if !full(err) || g.end > g.headCap+g.round() || !g.shrink(g.end) {
				return err
			}
			if err := g.f.Truncate(ringHead + g.end); err != nil {
				return err
			}
			if err := g.note(); err != nil {
				return err
			}
			continue
		}
		data = data[n:]
		g.end += n
		if g.f != nil && g.wrapped() {
			if err := g.note(); err != nil {
				return err
			}
		}
	}
	return nil
}

func full(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }

// shrink makes the ring fit into n bytes, all that is to be had.
func (g *ring) shrink(n int64) bool {
	head := min(g.headCap, n/2)
	if n-head < leastRing {
		return false
	}
	g.headCap, g.slack = head, (n-head)/4
	g.tailCap = n - head - g.slack
	return true
}

func (g *ring) put(b []byte, at int64) error {
	if g.f == nil {
		copy(g.mem[at:], b)
		return nil
	}
	_, err := g.f.WriteAt(b, ringHead+at)
	return err
}

// spill moves the ring into a file; what is in memory has not wrapped.
func (g *ring) spill(name string) error {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	g.f = f
	err = g.note()
	if err == nil {
		_, err = f.WriteAt(g.mem, ringHead)
	}
	if err != nil {
		g.f = nil
		f.Close()
		_ = os.Remove(name)
		return err
	}
	g.mem = nil
	return nil
}

// note writes the head of the file. While the ring has not wrapped, the file's size says where it ends.
func (g *ring) note() error {
	var b [ringHead]byte
	le := binary.LittleEndian
	copy(b[:], ringMagic)
	le.PutUint64(b[8:], uint64(g.headCap))
	le.PutUint64(b[16:], uint64(g.tailCap))
	le.PutUint64(b[24:], uint64(g.slack))
	if g.wrapped() {
		le.PutUint64(b[32:], uint64(g.end))
	}
	le.PutUint32(b[40:], crc32.Checksum(b[:40], castagnoli))
	_, err := g.f.WriteAt(b[:], 0)
	return err
}

// openRing reads the head of a ring's file, which the ring takes over.
func openRing(f *os.File) (ring, error) {
	var b [ringHead]byte
	if _, err := f.ReadAt(b[:], 0); err != nil && !errors.Is(err, io.EOF) {
		return ring{}, err
	}
	le := binary.LittleEndian
	g := ring{f: f, headCap: int64(le.Uint64(b[8:])), tailCap: int64(le.Uint64(b[16:])), slack: int64(le.Uint64(b[24:])), end: int64(le.Uint64(b[32:]))}
	st, err := f.Stat()
	if err != nil {
		return ring{}, err
	}
	if string(b[:8]) != ringMagic || le.Uint32(b[40:]) != crc32.Checksum(b[:40], castagnoli) {
		return ring{}, &Damage{File: f.Name(), What: "the log has no head"}
	}
	if have := st.Size() - ringHead; g.end == 0 {
		g.end = min(have, g.headCap+g.round())
	} else if have < g.headCap+g.round() {
		return ring{}, &Damage{File: f.Name(), Offset: st.Size(), What: "the log was cut short"}
	}
	return g, nil
}

// readAt reads from off on, or from behind the cut where off lies in it, into
// b: the place it read from and how much, 0 at the end.
func (g *ring) readAt(off int64, b []byte) (from int64, n int, err error) {
	limit := g.end
	if off < g.headCap {
		limit = min(limit, g.headCap)
	} else {
		off = max(off, g.tailStart())
	}
	if off >= limit {
		return off, 0, nil
	}
	at, k := g.place(off)
	k = min(k, limit-off, int64(len(b)))
	if g.f == nil {
		return off, copy(b[:k], g.mem[at:]), nil
	}
	n, err = g.f.ReadAt(b[:k], ringHead+at)
	if errors.Is(err, io.EOF) && n < int(k) {
		err = &Damage{File: g.f.Name(), Offset: ringHead + at + int64(n), What: "the log was cut short"}
	}
	return off, n, err
}

// visible calls fn with all that counts, in order.
func (g *ring) visible(fn func([]byte)) error {
	buf := make([]byte, min(g.end, pieceLen))
	for off := int64(0); off < g.end; {
		from, n, err := g.readAt(off, buf)
		if err != nil {
			return err
		}
		if n == 0 {
			break
		}
		fn(buf[:n])
		off = from + int64(n)
	}
	return nil
}

// part describes the finished log for its record.
func (g *ring) part() (p logPart, err error) {
	p = logPart{size: g.end, dropped: g.dropped(), head: min(g.end, g.headCap), file: g.f != nil && g.end > InlineLog}
	err = g.visible(func(b []byte) {
		if p.file {
			p.crc = crc32.Update(p.crc, castagnoli, b)
		} else {
			p.inline = append(p.inline, b...)
		}
	})
	return p, err
}
