package table

import (
	"encoding/binary"
	"sync/atomic"

	"github.com/zeebo/xxh3"

	"github.com/sheaf-run/agent/sheaf"
)

// pageSize is how many partitions share a page: about 19 KB, which copies in
// a microsecond, and whose header adds a third of a byte to each.
const pageSize = 256

// The columns of a page lie back to back in one byte slice, little-endian, each as
// long as the page; a column begins at its offset here times the page's length.
// The layout is the snapshot's format.
const (
	colStarted    = 0
	colFence      = 8
	colAttempt    = 12
	colNode       = 16
	colExit       = 20
	colDuration   = 24
	colCPU        = 28
	colPeak       = 32
	colOutput     = 36
	colGeneration = 68
	colState      = 70
	colFailures   = 71
	colLosses     = 72
	colFailure    = 73
	rowBytes      = 74
)

// page is up to pageSize partitions. Without data all of them are fresh, in the state fill.
type page struct {
	owner   *token
	data    []byte
	n       uint16
	delayed uint16 // pending ones with a NotBeforeMs
	counts  [sheaf.PartitionStates]uint16
	fill    sheaf.PartitionState
	digest  atomic.Uint64 // of the encoded page, 0 while not computed
}

// uniform makes a page of n fresh partitions in one state.
func uniform(owner *token, n int, s sheaf.PartitionState) *page {
	p := &page{owner: owner, n: uint16(n), fill: s}
	p.counts[s] = uint16(n)
	return p
}

// materialize gives a uniform page its columns.
func (p *page) materialize() {
	n := int(p.n)
	p.data = make([]byte, n*rowBytes)
	for i := range 4 * n {
		p.data[colExit*n+i] = 0xff
	}
	if p.fill != 0 {
		for i := range n {
			p.data[colState*n+i] = byte(p.fill)
		}
	}
}

// clone copies the page for owner, who will write to it.
func (p *page) clone(owner *token) *page {
	q := &page{owner: owner, n: p.n, delayed: p.delayed, counts: p.counts, fill: p.fill}
	if p.data != nil {
		q.data = append([]byte(nil), p.data...)
	}
	return q
}

func (p *page) u32(col, i int) uint32 {
	return binary.LittleEndian.Uint32(p.data[col*int(p.n)+4*i:])
}

func (p *page) put32(col, i int, v uint32) {
	binary.LittleEndian.PutUint32(p.data[col*int(p.n)+4*i:], v)
}

func (p *page) started(i int) int64 {
	return int64(binary.LittleEndian.Uint64(p.data[8*i:]))
}

func (p *page) state(i int) sheaf.PartitionState {
	if p.data == nil {
		return p.fill
	}
	return sheaf.PartitionState(p.data[colState*int(p.n)+i])
}

func (p *page) row(i int) Row {
	if p.data == nil {
		return fresh(p.fill)
	}
	n := int(p.n)
	r := Row{
		State:      sheaf.PartitionState(p.data[colState*n+i]),
		Fence:      p.u32(colFence, i),
		Attempt:    p.u32(colAttempt, i),
		Node:       p.u32(colNode, i),
		Generation: binary.LittleEndian.Uint16(p.data[colGeneration*n+2*i:]),
		Failures:   p.data[colFailures*n+i],
		Losses:     p.data[colLosses*n+i],
		Failure:    sheaf.FailureKind(p.data[colFailure*n+i]),
		ExitCode:   int32(p.u32(colExit, i)),
		StartedMs:  p.started(i),
		DurationMs: p.u32(colDuration, i),
		CPUMs:      p.u32(colCPU, i),
		PeakKiB:    p.u32(colPeak, i),
	}
	copy(r.Output[:], p.data[colOutput*n+32*i:])
	return r
}

// set writes a row of an owned page; the counts are the caller's.
func (p *page) set(i int, r *Row) {
	n := int(p.n)
	binary.LittleEndian.PutUint64(p.data[8*i:], uint64(r.StartedMs))
	p.put32(colFence, i, r.Fence)
	p.put32(colAttempt, i, r.Attempt)
	p.put32(colNode, i, r.Node)
	p.put32(colExit, i, uint32(r.ExitCode))
	p.put32(colDuration, i, r.DurationMs)
	p.put32(colCPU, i, r.CPUMs)
	p.put32(colPeak, i, r.PeakKiB)
	copy(p.data[colOutput*n+32*i:colOutput*n+32*i+32], r.Output[:])
	binary.LittleEndian.PutUint16(p.data[colGeneration*n+2*i:], r.Generation)
	p.data[colState*n+i] = byte(r.State)
	p.data[colFailures*n+i] = r.Failures
	p.data[colLosses*n+i] = r.Losses
	p.data[colFailure*n+i] = byte(r.Failure)
}

// sum is the page's digest. It is computed once; two goroutines that both do
// so store the same.
func (p *page) sum() uint64 {
	if d := p.digest.Load(); d != 0 {
		return d
	}
	var d uint64
	if p.data == nil {
		d = xxh3.Hash([]byte{byte(p.fill), byte(p.n), byte(p.n >> 8)})
	} else {
		d = xxh3.Hash(p.data)
	}
	d = max(d, 1)
	p.digest.Store(d)
	return d
}
