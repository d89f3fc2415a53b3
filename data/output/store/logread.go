package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
)

// Piece is a stretch of a log.
type Piece struct {
	Offset  int64  // of Data, from the start of what the task wrote
	Data    []byte // valid until the next call
	Dropped int64  // bytes between the place that was asked for and Data, which are no longer kept
}

// LogReader reads a log. It is used by one goroutine.
type LogReader struct {
	ctx    context.Context
	follow bool
	live   *Logs // or nil, and
	fixed  kept
	index  int
	pos    int64
	buf    []byte
}

// kept is a log that no longer changes.
type kept interface {
	readAt(off int64, b []byte) (from int64, n int, err error)
}

// inlineLog is a log in its record.
type inlineLog struct{ logPart }

func (l inlineLog) readAt(off int64, b []byte) (int64, int, error) {
	if off < l.head {
		return off, copy(b, l.inline[off:l.head]), nil
	}
	off = max(off, l.head+l.dropped)
	return off, copy(b, l.inline[min(off-l.dropped, int64(len(l.inline))):]), nil
}

// OpenLog opens a log for reading, of a running attempt too; attempt 0 is the
// latest known. With follow, reading waits for more until the attempt has ended or ctx has.
func (r *Run) OpenLog(ctx context.Context, partition int, attempt uint32, stderr, follow bool) (*LogReader, error) {
	lr := &LogReader{ctx: ctx, follow: follow, index: which(stderr)}
	if lr.live = r.running(partition, attempt); lr.live != nil {
		return lr, nil
	}
	e, err := r.entry(partition)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	rd := r.reader()
	defer rd.close()
	var part logPart
	var k Key
	err = r.find(rd, e, Key{partition, attempt}, func(d *decoded) {
		part = [2]logPart{d.stdout, d.stderr}[lr.index]
		part.inline = bytes.Clone(part.inline)
		k = Key{partition, d.rec.Attempt}
	})
	if err != nil {
		return nil, err
	}
	if !part.file {
		lr.fixed = inlineLog{part}
		return lr, nil
	}
	g, err := r.openLogFile(k, lr.index, part)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", r.noted(err))
	}
	lr.fixed = g
	return lr, nil
}

// running finds the logs of an attempt that runs, or whose record is not durable yet.
func (r *Run) running(partition int, attempt uint32) *Logs {
	r.mu.Lock()
	defer r.mu.Unlock()
	var found *Logs
	if attempt > 0 {
		found = r.live[Key{partition, attempt}]
	} else {
		for k, l := range r.live { // as many as run
			if k.Partition == partition && (found == nil || k.Attempt > found.key.Attempt) {
				found = l
			}
		}
	}
	if found != nil {
		found.mu.Lock()
		found.readers++
		found.mu.Unlock()
	}
	return found
}

// openLogFile opens a finished log and checks all of it: at most the limit of
// a log, read once.
func (r *Run) openLogFile(k Key, i int, part logPart) (*ring, error) {
	name := r.logName(k, i)
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &Damage{File: name, What: "the log is gone"}
	}
	if err != nil {
		return nil, err
	}
	g, err := openRing(f)
	var crc uint32
	if err == nil {
		if g.end != part.size || g.dropped() != part.dropped {
			err = &Damage{File: name, Offset: ringHead, What: fmt.Sprintf("the log has %d bytes of %d", g.end, part.size)}
		} else if err = g.visible(func(b []byte) { crc = crc32.Update(crc, castagnoli, b) }); err == nil && crc != part.crc {
			err = &Damage{File: name, Offset: ringHead, What: "the log fails its checksum"}
		}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return &g, nil
}

// SeekTo sets where the next piece begins, in bytes from the start of what the
// task wrote; an offset in the part that was cut out moves to its end.
func (r *LogReader) SeekTo(offset int64) { r.pos = max(0, offset) }

// read gives a piece from off on, and where it begins.
func (r *LogReader) read(off int64, b []byte) (from int64, n int, err error) {
	if r.live == nil {
		return r.fixed.readAt(off, b)
	}
	r.live.mu.Lock()
	defer r.live.mu.Unlock()
	return r.live.rings[r.index].readAt(off, b)
}

// SeekLines sets the next piece to begin with the last n lines of what is kept.
func (r *LogReader) SeekLines(n int) error {
	if r.buf == nil {
		r.buf = make([]byte, pieceLen)
	}
	lines := 0
	end, err := r.lines(func(int64) bool { lines++; return true })
	if err != nil {
		return err
	}
	r.pos = 0
	if n <= 0 {
		r.pos = end
	}
	if skip := lines - n; n > 0 && skip > 0 {
		_, err = r.lines(func(start int64) bool {
			r.pos = start
			skip--
			return skip >= 0
		})
	}
	return err
}

// lines calls fn with where each line starts, until fn says not to go on, and
// gives the end of the log.
func (r *LogReader) lines(fn func(start int64) bool) (end int64, err error) {
	fresh := true
	for off := int64(0); ; {
		from, n, err := r.read(off, r.buf)
		if err != nil {
			return off, fmt.Errorf("read log: %w", err)
		}
		if n == 0 {
			return from, nil
		}
		for i, c := range r.buf[:n] {
			if fresh && !fn(from+int64(i)) {
				return off, nil
			}
			fresh = c == '\n'
		}
		off = from + int64(n)
	}
}

// Next gives the next piece, at most 64 KiB. At the end it is io.EOF; a
// follower waits there until the attempt has ended.
func (r *LogReader) Next() (Piece, error) {
	if r.buf == nil {
		r.buf = make([]byte, pieceLen)
	}
	for {
		from, n, err := r.read(r.pos, r.buf)
		if err != nil {
			return Piece{}, fmt.Errorf("read log: %w", err)
		}
		if n == 0 && from > r.pos {
			r.pos = from // from the end of the head to the tail
			continue
		}
		if n > 0 {
			p := Piece{Offset: from, Data: r.buf[:n], Dropped: from - r.pos}
			r.pos = from + int64(n)
			return p, nil
		}
		more, err := r.wait()
		if err != nil {
			return Piece{}, err
		}
		if !more {
			return Piece{}, io.EOF
		}
	}
}

// wait reports whether there may be more to read.
func (r *LogReader) wait() (bool, error) {
	if r.live == nil {
		return false, nil
	}
	l := r.live
	l.mu.Lock()
	if l.rings[r.index].end > r.pos {
		l.mu.Unlock()
		return true, nil
	}
	if l.ended || !r.follow {
		l.mu.Unlock()
		return false, nil
	}
	if l.changed == nil {
		l.changed = make(chan struct{})
	}
	changed := l.changed
	l.mu.Unlock()
	select {
	case <-changed:
		return true, nil
	case <-r.ctx.Done():
		return false, r.ctx.Err()
	}
}

// Close lets go of the log.
func (r *LogReader) Close() error {
	if l := r.live; l != nil {
		r.live, r.fixed = nil, inlineLog{}
		l.mu.Lock()
		defer l.mu.Unlock()
		l.readers--
		l.closeIfDone()
		return nil
	}
	if g, ok := r.fixed.(*ring); ok {
		r.fixed = inlineLog{}
		return g.f.Close()
	}
	return nil
}
