// Package table holds the partitions of one run as columns in copy-on-write
// pages of 256. A Table never changes; an Edit makes the next one, copying a page the
// first time it writes to it and in place from then on. Pages that nothing has
// touched are not there, so a table of ten million pending partitions takes a few
// kilobytes. Each page, each group of 256 pages and the table count their partitions by
// state, so that finding the next pending ones never scans everything.
//
// A Table may be read by any number of goroutines; an Edit belongs to one.
package table

import (
	"encoding/hex"
	"fmt"

	"github.com/sheaf-run/agent/sheaf"
)

// Digest is the sha256 of an output's manifest. All zeros is none.
type Digest [32]byte

// Row is one partition, all its columns.
type Row struct {
	State      sheaf.PartitionState
	Fence      uint32 // the highest attempt ever placed; never goes back
	Attempt    uint32 // valid (assigned), committed (succeeded), or recorded as failed (pending, failed); 0 if the last ended without a result
	Node       uint32 // number of that attempt's node; of a pending partition, where it was last; 0 is none
	Generation uint16 // raised by every invalidation and retry of a committed output
	Failures   uint8  // tries that count against retry.attempts
	Losses     uint8  // within this generation
	Failure    sheaf.FailureKind
	ExitCode   int32  // of the try that ended last; -1 is none
	StartedMs  int64  // of the try that ended last, Unix, by the client's clock; of a pending partition, see NotBeforeMs
	DurationMs uint32 // of the try that ended last
	CPUMs      uint32
	PeakKiB    uint32
	Output     Digest
}

// NotBeforeMs is the cluster time before which a pending partition is not
// placed again; 0 is at once.
func (r Row) NotBeforeMs() int64 {
	if r.State != sheaf.PartitionPending {
		return 0
	}
	return r.StartedMs
}

// Counts is how many partitions are in each state.
type Counts [sheaf.PartitionStates]int

// States is a set of states.
type States uint8

// Set makes a set.
func Set(states ...sheaf.PartitionState) States {
	var s States
	for _, x := range states {
		s |= 1 << x
	}
	return s
}

// Has reports whether x is in the set.
func (s States) Has(x sheaf.PartitionState) bool { return s>>x&1 != 0 }

// NodeCount is what one node holds of a table.
type NodeCount struct {
	Node      uint32
	Assigned  uint32 // valid attempts in the columns; backups are counted elsewhere
	Committed uint32 // succeeded, with the output there
}

// fresh is a partition that nothing has touched.
func fresh(s sheaf.PartitionState) Row { return Row{State: s, ExitCode: -1} }

// groupSize is how many pages one group refers to: small enough to copy for
// one partition, large enough that ten million need 153 groups.
const groupSize = 256

// Table is the partitions of a run.
type Table struct {
	n       int
	groups  []*group // nil where no page of it is there
	counts  Counts
	delayed int         // pending partitions with a NotBeforeMs
	nodes   []NodeCount // ascending by node; none is all zero
}

// group is groupSize pages in a row, the last group fewer.
type group struct {
	owner   *token
	pages   []*page // nil where every partition is pending and untouched
	counts  [sheaf.PartitionStates]uint32
	delayed uint32
}

// token is an Edit's right to write in place. It is not empty, so that no two are one.
type token struct{ _ byte }

// New makes a table of n pending partitions.
func New(n int) *Table {
	t := &Table{n: n, groups: make([]*group, (n+groupSize*pageSize-1)/(groupSize*pageSize))}
	t.counts[sheaf.PartitionPending] = n
	return t
}

// Len is how many partitions there are.
func (t *Table) Len() int { return t.n }

// Counts is how many partitions are in each state.
func (t *Table) Counts() Counts { return t.counts }

// NodeCounts is what each node holds, ascending by node. It must not be changed.
func (t *Table) NodeCounts() []NodeCount { return t.nodes }

// OnNode is what one node holds.
func (t *Table) OnNode(node uint32) NodeCount {
	if i, ok := findNode(t.nodes, node); ok {
		return t.nodes[i]
	}
	return NodeCount{Node: node}
}

// Row is partition i.
func (t *Table) Row(i int) Row {
	if p := t.page(i / pageSize); p != nil {
		return p.row(i % pageSize)
	}
	if uint(i) >= uint(t.n) {
		panic(fmt.Sprintf("table: partition %d of %d", i, t.n))
	}
	return fresh(sheaf.PartitionPending)
}

// page is page k, or nil where it is untouched.
func (t *Table) page(k int) *page {
	if g := t.groups[k/groupSize]; g != nil {
		return g.pages[k%groupSize]
	}
	return nil
}

// pageCount is how many pages the table has, untouched ones included.
func (t *Table) pageCount() int { return (t.n + pageSize - 1) / pageSize }

// pageLen is how many partitions page k has.
func (t *Table) pageLen(k int) int { return min(pageSize, t.n-k*pageSize) }

// groupLen is how many partitions group g has.
func (t *Table) groupLen(g int) int {
	return min(groupSize*pageSize, t.n-g*groupSize*pageSize)
}

// String is the digest in hex.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// MarshalText writes the digest in hex.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads 64 hex digits.
func (d *Digest) UnmarshalText(b []byte) error {
	if len(b) != 2*len(d) {
		return fmt.Errorf("digest of %d characters, not %d", len(b), 2*len(d))
	}
	_, err := hex.Decode(d[:], b)
	return err
}
