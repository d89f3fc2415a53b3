package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// The index has 16 bytes a partition, behind a head of the same length:
//
//	0  segment and offset of the record that was appended last
//	8  its attempt
//	12 flags in the low byte, above them 24 bits of a checksum over all that and the partition
//
// An entry of zeros has no record. The index can be made again from the segments,
// but for marks of answers.
const (
	entryLen    = 16
	pageEntries = 256 // entries read and written at once: a page of the kernel
	pageLen     = pageEntries * entryLen
	reserveLen  = 64 << 10 // bytes of index allocated at once
	indexMagic  = "SHEAFIX1"
)

// Flags of an entry.
const (
	flagAnswered   = 1 << iota // the record that the entry points to
	flagOlderOpen              // a record further down the chain may be unanswered
	flagNotHighest             // a record further down the chain has a higher attempt
)

type entry struct {
	at      loc
	attempt uint32
	flags   byte
}

func (e entry) empty() bool { return e.attempt == 0 }

func (e entry) put(b []byte, partition int) {
	le := binary.LittleEndian
	le.PutUint32(b, e.at.seg)
	le.PutUint32(b[4:], e.at.off)
	le.PutUint32(b[8:], e.attempt)
	b[12] = e.flags
	c := entryCheck(b, partition)
	b[13], b[14], b[15] = byte(c), byte(c>>8), byte(c>>16)
}

func getEntry(b []byte, partition int) (entry, bool) {
	le := binary.LittleEndian
	e := entry{at: loc{le.Uint32(b), le.Uint32(b[4:])}, attempt: le.Uint32(b[8:]), flags: b[12]}
	sum := uint32(b[13]) | uint32(b[14])<<8 | uint32(b[15])<<16
	if e == (entry{}) && sum == 0 {
		return e, true
	}
	return e, sum == entryCheck(b, partition) && e.attempt != 0
}

func entryCheck(b []byte, partition int) uint32 {
	var p [4]byte
	binary.LittleEndian.PutUint32(p[:], uint32(partition))
	return crc32.Update(crc32.Checksum(b[:13], castagnoli), castagnoli, p[:]) & 0xffffff
}

// index is the open index of a run. It is guarded by the run's mutex.
type index struct {
	f        *os.File
	reserved []uint64 // a bit for each stretch of reserveLen that is known to be allocated
	buf      [pageLen]byte
}

// openIndex opens the index or makes it; fresh says that it holds nothing.
func openIndex(name string) (x *index, fresh bool, err error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, false, err
	}
	x = &index{f: f}
	var b [entryLen]byte
	n, err := f.ReadAt(b[:], 0)
	switch {
	case n == 0 && errors.Is(err, io.EOF):
		fresh = true
	case err != nil && !errors.Is(err, io.EOF):
		f.Close()
		return nil, false, err
	case n < entryLen || string(b[:]) != indexMagic+"\x00\x00\x00\x00\x00\x00\x00\x00":
		f.Close()
		return nil, false, &Damage{File: name, What: "the index has no head"}
	}
	if fresh {
		copy(b[:], indexMagic)
		if _, err := f.WriteAt(b[:], 0); err != nil {
			f.Close()
			_ = os.Remove(name)
			return nil, false, err
		}
	}
	return x, fresh, nil
}

func entryOffset(partition int) int64 { return int64(partition+1) * entryLen }

// reserve allocates the stretch of the file that holds a partition's entry, so
// that writing it later cannot fail for lack of room.
func (x *index) reserve(partition int) error {
	stretch := entryOffset(partition) / reserveLen
	word, bit := int(stretch/64), uint64(1)<<(stretch%64)
	if word < len(x.reserved) && x.reserved[word]&bit != 0 {
		return nil
	}
	err := unix.Fallocate(int(x.f.Fd()), 0, stretch*reserveLen, reserveLen)
	if err != nil && !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.ENOSYS) {
		return &os.PathError{Op: "allocate", Path: x.f.Name(), Err: err}
	}
	// Where nothing can be allocated ahead, the write itself does, and is tried again when it fails.
	for word >= len(x.reserved) {
		x.reserved = append(x.reserved, 0)
	}
	x.reserved[word] |= bit
	return nil
}

// page calls fn with the entries that hold partition first and those behind
// it in one piece of at most pageEntries, and writes them back when fn says so. Slots past the end of the file are zeros.
func (x *index) page(first int, fn func(slots []byte, first int) (dirty bool, err error)) error {
	off := entryOffset(first)
	n, err := x.f.ReadAt(x.buf[:], off)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	clear(x.buf[n:])
	dirty, err := fn(x.buf[:], first)
	if err != nil || !dirty {
		return err
	}
	end := pageLen
	for end > n && allZero(x.buf[end-entryLen:end]) {
		end -= entryLen
	}
	_, err = x.f.WriteAt(x.buf[:end], off)
	return err
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// get reads one entry.
func (x *index) get(partition int) (e entry, err error) {
	var b [entryLen]byte
	n, err := x.f.ReadAt(b[:], entryOffset(partition))
	if err != nil && !errors.Is(err, io.EOF) {
		return entry{}, err
	}
	clear(b[n:])
	e, ok := getEntry(b[:], partition)
	if !ok {
		return entry{}, x.damage(partition)
	}
	return e, nil
}

// end is how many partitions the file has room for.
func (x *index) end() (int, error) {
	st, err := x.f.Stat()
	if err != nil {
		return 0, err
	}
	return max(0, int(st.Size()/entryLen)-1), nil
}

func (x *index) damage(partition int) *Damage {
	return &Damage{File: x.f.Name(), Offset: entryOffset(partition), What: fmt.Sprintf("the index entry of partition %d fails its check", partition)}
}
