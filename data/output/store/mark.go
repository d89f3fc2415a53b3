package store

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math"
	"os"
	"path/filepath"
)

// The mark says up to where the segments were whole and in the index when the index was
// last synced. What lies behind it is read again when the run is opened.
const (
	markMagic = "SHEAFMK1"
	markLen   = 32
	// markWorth is from how many records on a run is marked that is closed and may soon be opened
	// again. Marking takes three syncs, about 300 µs; reading as many records again takes as long.
	markWorth = 512
	markAny   = 1
	markNever = math.MaxInt
)

type mark struct {
	at       loc // where the last segment ended
	batch    uint32
	indexLen int64
}

// readMark gives the zero mark where there is none.
func readMark(dir string) (mark, error) {
	name := filepath.Join(dir, "mark")
	b, err := os.ReadFile(name)
	if errors.Is(err, os.ErrNotExist) {
		return mark{}, nil
	}
	if err != nil {
		return mark{}, err
	}
	le := binary.LittleEndian
	if len(b) != markLen || string(b[:8]) != markMagic || le.Uint32(b[28:]) != crc32.Checksum(b[:28], castagnoli) {
		return mark{}, &Damage{File: name, What: "the mark fails its checksum"}
	}
	return mark{at: loc{le.Uint32(b[8:]), le.Uint32(b[12:])}, batch: le.Uint32(b[16:]), indexLen: int64(le.Uint64(b[20:]))}, nil
}

// write puts the mark in place at once; the index must have been synced before.
func (m mark) write(dir string) error {
	var b [markLen]byte
	le := binary.LittleEndian
	copy(b[:], markMagic)
	le.PutUint32(b[8:], m.at.seg)
	le.PutUint32(b[12:], m.at.off)
	le.PutUint32(b[16:], m.batch)
	le.PutUint64(b[20:], uint64(m.indexLen))
	le.PutUint32(b[28:], crc32.Checksum(b[:28], castagnoli))
	return replaceFile(filepath.Join(dir, "mark"), b[:])
}

// replaceFile writes a file under another name, syncs it and moves it into place.
func replaceFile(name string, data []byte) error {
	f, err := os.OpenFile(name+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err2 := f.Close(); err == nil {
		err = err2
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return err
	}
	if err := os.Rename(f.Name(), name); err != nil {
		return err
	}
	return syncDir(filepath.Dir(name))
}

func syncDir(name string) error {
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
