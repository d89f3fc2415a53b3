package shard

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"

	"github.com/sheaf-run/agent/sheaf"
)

// Fingerprint names what a partition reads: the paths and identities of its atoms, in order,
// and how they are grouped. Partitions of equal fingerprints whose tasks are equal make the
// same output. It is the first half of a sha256: of ten million partitions two differing
// ones meet with a chance of 1 in 10^24.
type Fingerprint [16]byte

// Fingerprinter makes the fingerprints of a job's shards.
type Fingerprinter struct {
	indexed bool              // the task is told its partition's index
	count   int               // of a job without a split, which its tasks are told; else 0
	sources map[string]string // by input, the URL
	sum     hash.Hash
	buf     []byte
}

// NewFingerprinter makes one for a job.
func NewFingerprinter(job *sheaf.Job) *Fingerprinter {
	f := &Fingerprinter{indexed: sheaf.RefersTo(&job.Task, "partition.index"), sources: map[string]string{}, sum: sha256.New()}
	if job.Split == nil {
		f.indexed, f.count = true, job.Count
	}
	for _, in := range job.Inputs {
		f.sources[in.Name] = in.Source
		if _, output, ok := sheaf.CutResult(in.Source); ok {
			f.sources[in.Name] = sheaf.ResultURL("", output) // of whichever run: all has digests
		}
	}
	return f
}

// Of is the fingerprint of a shard. Fingerprints of runs to come are held against it: what
// it is made of never changes without making every output anew.
func (f *Fingerprinter) Of(v *View) Fingerprint {
	f.sum.Reset()
	f.buf = append(f.buf[:0], 1) // of this form
	if f.indexed {
		f.buf = binary.AppendUvarint(append(f.buf, 1), uint64(v.Index))
	} else {
		f.buf = append(f.buf, 0)
	}
	if f.count > 0 {
		f.number(uint64(f.count))
	}
	f.text(v.Key)
	f.number(uint64(len(v.Keys)))
	for _, k := range v.Keys {
		f.text(k)
	}
	end := 0
	for i := range v.Atoms {
		a := &v.Atoms[i]
		kind := byte(0)
		if a.Dir {
			kind |= kindDir
		}
		if v.Ends != nil && end < len(v.Ends) && int(v.Ends[end]) == i+1 {
			kind |= kindEnds
			end++
		}
		if a.Tag != "" {
			kind |= kindTag
		}
		f.buf = append(f.buf, kind)
		f.text(a.Path)
		f.text(a.Input)
		f.number(uint64(a.Size))
		f.text(a.Tag)
		if a.Tag == "" {
			f.buf = binary.AppendVarint(f.buf, a.MTime)
		}
		if a.Tag == "" || a.Dir {
			// Size and time promise something within one source only; those of a
			// directory may be among what its identity was made of.
			f.text(f.sources[a.Input])
		}
		if len(f.buf) >= hashBuffer {
			f.sum.Write(f.buf)
			f.buf = f.buf[:0]
		}
	}
	f.sum.Write(f.buf)
	var sum [sha256.Size]byte
	f.sum.Sum(sum[:0])
	return Fingerprint(sum[:16])
}

func (f *Fingerprinter) text(s string) {
	f.number(uint64(len(s)))
	f.buf = append(f.buf, s...)
}

func (f *Fingerprinter) number(n uint64) { f.buf = binary.AppendUvarint(f.buf, n) }

// Fingerprints are those of the partitions that begin in a chunk, and the first of these
// partitions. There are none in a manifest that was written without. Nothing else of the
// chunk is looked at.
func Fingerprints(chunk []byte) (first int, prints []Fingerprint, err error) {
	c, err := openChunk(chunk)
	if err != nil {
		return 0, nil, err
	}
	col := c.col[colPrints].rest
	if len(col) == 0 {
		return c.first, nil, nil
	}
	if len(col) != c.begun*len(Fingerprint{}) {
		return 0, nil, errDamaged
	}
	prints = make([]Fingerprint, c.begun)
	for i := range prints {
		prints[i] = Fingerprint(col[i*len(Fingerprint{}):])
	}
	return c.first, prints, nil
}
