package store

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"time"

	"github.com/sheaf-run/agent/sheaf"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// A record on disk is a head of headLen bytes and a payload:
//
//	0  crc32c of the segment's salt, bytes 4 to 20 and the payload
//	4  length of the payload
//	8  batch: the number of the flush that wrote it; the last record of a batch has lastOfBatch set
//	12 segment and offset of an earlier record of the partition, 0 and 0 for none
//	20 answered or unanswered: the one byte that is written again, outside the checksum
//
// The salt is random, so that nothing a task prints can pass for a record.
const (
	headLen     = 21
	answerByte  = 20
	answered    = 0xA5 // eight bits from unanswered: no flip makes one of the other
	unanswered  = 0x5A
	lastOfBatch = 1 << 31
	maxPayload  = 1 << 30 // bytes; a manifest of output.MaxFiles files is a fifth of it
)

// loc is where a record lies; the zero value is nowhere.
type loc struct{ seg, off uint32 }

func (l loc) before(m loc) bool { return l.seg < m.seg || l.seg == m.seg && l.off < m.off }

type head struct {
	crc, length, batch uint32
	last               bool
	prev               loc
	mark               byte
}

func readHead(b []byte) head {
	le := binary.LittleEndian
	batch := le.Uint32(b[8:])
	return head{
		crc: le.Uint32(b), length: le.Uint32(b[4:]), batch: batch &^ lastOfBatch, last: batch&lastOfBatch != 0,
		prev: loc{le.Uint32(b[12:]), le.Uint32(b[16:])}, mark: b[answerByte],
	}
}

// sealHead fills in the head of rec, whose payload stands behind it.
func sealHead(rec []byte, salt uint64, batch uint32, last bool, prev loc) {
	le := binary.LittleEndian
	le.PutUint32(rec[4:], uint32(len(rec)-headLen))
	if last {
		batch |= lastOfBatch
	}
	le.PutUint32(rec[8:], batch)
	le.PutUint32(rec[12:], prev.seg)
	le.PutUint32(rec[16:], prev.off)
	rec[answerByte] = unanswered
	le.PutUint32(rec, checksum(rec, salt))
}

func checksum(rec []byte, salt uint64) uint32 {
	var s [8]byte
	binary.LittleEndian.PutUint64(s[:], salt)
	c := crc32.Update(0, castagnoli, s[:])
	c = crc32.Update(c, castagnoli, rec[4:answerByte])
	return crc32.Update(c, castagnoli, rec[headLen:])
}

// logPart is what a record holds of one log.
type logPart struct {
	size, dropped int64
	head          int64  // bytes before the cut, where something was dropped
	file          bool   // in a file of its own, else inline
	inline        []byte // head and tail in one
	crc           uint32 // of head and tail, where in a file
}

func (p *logPart) info() LogInfo { return LogInfo{Size: p.size, Dropped: p.dropped} }

// Flags of a payload.
const (
	flagDigest = 1 << iota
	flagManifest
	flagStdout
	flagStderr
	flagStdoutFile
	flagStderrFile
	flagsEnd
)

// emptyDigest is the digest of no files, which is not worth 32 bytes a record.
var emptyDigest = sha256.Sum256(nil)

// appendRecord appends a head yet to be sealed and the payload.
func appendRecord(b []byte, r *Record, stdout, stderr *logPart) []byte {
	b = append(b, make([]byte, headLen)...)
	var flags byte
	if r.Digest != [sha256.Size]byte{} {
		flags |= flagDigest
	}
	if len(r.Manifest) > 0 {
		flags |= flagManifest
	}
	if stdout.size > 0 {
		flags |= flagStdout
	}
	if stderr.size > 0 {
		flags |= flagStderr
	}
	if stdout.file {
		flags |= flagStdoutFile
	}
	if stderr.file {
		flags |= flagStderrFile
	}
	b = append(b, flags, byte(r.Outcome), byte(r.Failure))
	for _, v := range [...]uint64{uint64(r.Partition), uint64(r.Attempt), uint64(r.Generation), uint64(r.Duration.Milliseconds()), uint64(r.CPU.Milliseconds()), uint64(r.PeakMemory >> 10)} {
		b = binary.AppendUvarint(b, v)
	}
	b = binary.AppendVarint(b, int64(r.ExitCode))
	var startedMs int64
	if !r.Started.IsZero() {
		startedMs = r.Started.UnixMilli()
	}
	b = binary.AppendVarint(b, startedMs)
	b = appendBytes(b, []byte(r.Message[:min(len(r.Message), MaxMessage)]))
	if flags&flagManifest != 0 {
		b = appendBytes(b, r.Manifest)
	}
	if flags&flagDigest != 0 {
		if r.Digest == emptyDigest {
			b = append(b, 0)
		} else {
			b = append(append(b, 1), r.Digest[:]...)
		}
	}
	if flags&flagStdout != 0 {
		b = appendLog(b, stdout)
	}
	if flags&flagStderr != 0 {
		b = appendLog(b, stderr)
	}
	return b
}

func appendBytes(b, v []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(v))), v...)
}

func appendLog(b []byte, p *logPart) []byte {
	b = binary.AppendUvarint(b, uint64(p.size))
	b = binary.AppendUvarint(b, uint64(p.dropped))
	b = binary.AppendUvarint(b, uint64(p.head))
	if p.file {
		return binary.LittleEndian.AppendUint32(b, p.crc)
	}
	return appendBytes(b, p.inline)
}

var errPayload = errors.New("the record's payload makes no sense")

// decoded is a record as it was read.
type decoded struct {
	rec            Record
	stdout, stderr logPart
}

// decodePayload reads a payload. Its byte slices share b's memory.
func decodePayload(b []byte) (d decoded, err error) {
	c := cursor{b: b}
	flags := c.byte()
	r := &d.rec
	r.Outcome, r.Failure = sheaf.Outcome(c.byte()), sheaf.FailureKind(c.byte())
	r.Partition = int(c.below(sheaf.MaxPartitions))
	r.Attempt = uint32(c.below(1 << 32))
	r.Generation = uint32(c.below(1 << 32))
	r.Duration = time.Duration(c.below(maxMillis)) * time.Millisecond
	r.CPU = time.Duration(c.below(maxMillis)) * time.Millisecond
	r.PeakMemory = int64(c.below(1<<52)) << 10
	exit := c.varint()
	r.ExitCode = int32(exit)
	if ms := c.varint(); ms != 0 {
		r.Started = time.UnixMilli(ms)
	}
	r.Message = string(c.bytes())
	if flags&flagManifest != 0 {
		r.Manifest = c.bytes()
	}
	if flags&flagDigest != 0 {
		if c.byte() == 0 {
			r.Digest = emptyDigest
		} else {
			copy(r.Digest[:], c.take(sha256.Size))
		}
	}
	if flags&flagStdout != 0 {
		d.stdout = c.log(flags&flagStdoutFile != 0)
	}
	if flags&flagStderr != 0 {
		d.stderr = c.log(flags&flagStderrFile != 0)
	}
	impossible := flags >= flagsEnd || flags&flagStdoutFile != 0 && flags&flagStdout == 0 || flags&flagStderrFile != 0 && flags&flagStderr == 0 ||
		flags&flagManifest != 0 && len(r.Manifest) == 0 || len(r.Message) > MaxMessage || r.Attempt == 0 || int64(r.ExitCode) != exit
	if c.bad || impossible || len(c.b) != 0 {
		return decoded{}, errPayload
	}
	r.Stdout, r.Stderr = d.stdout.info(), d.stderr.info()
	return d, nil
}

const maxMillis = uint64(1<<63-1) / uint64(time.Millisecond)

// cursor reads forward; once bad it gives zeros.
type cursor struct {
	b   []byte
	bad bool
}

func (c *cursor) take(n int) []byte {
	if c.bad || n < 0 || n > len(c.b) {
		c.bad = true
		return nil
	}
	v := c.b[:n:n]
	c.b = c.b[n:]
	return v
}

func (c *cursor) byte() byte {
	if v := c.take(1); v != nil {
		return v[0]
	}
	return 0
}

func (c *cursor) below(limit uint64) uint64 {
	v, n := binary.Uvarint(c.b)
	if c.bad || n <= 0 || v >= limit {
		c.bad = true
		return 0
	}
	c.b = c.b[n:]
	return v
}

func (c *cursor) varint() int64 {
	v, n := binary.Varint(c.b)
	if c.bad || n <= 0 {
		c.bad = true
		return 0
	}
	c.b = c.b[n:]
	return v
}

func (c *cursor) bytes() []byte { return c.take(int(c.below(maxPayload))) }

func (c *cursor) log(file bool) logPart {
	p := logPart{size: int64(c.below(1 << 62)), dropped: int64(c.below(1 << 62)), head: int64(c.below(1 << 62)), file: file}
	if file {
		if v := c.take(4); v != nil {
			p.crc = binary.LittleEndian.Uint32(v)
		}
	} else {
		p.inline = c.bytes()
		c.bad = c.bad || int64(len(p.inline)) != p.size-p.dropped
	}
	c.bad = c.bad || p.size == 0 || p.dropped > p.size || p.head > p.size-p.dropped
	return p
}
