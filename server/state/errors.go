package state

import (
	"slices"
	"strconv"
	"strings"

	"github.com/sheaf-run/agent/sheaf"
)

// Bounds of an ErrorLog: what a person reads, and what ten million partitions that
// fail at random may cost.
const (
	MaxErrorGroups = 10  // the last of them takes all other causes
	MaxErrorRanges = 256 // ranges a group keeps; beyond, partitions are only counted
)

// otherCauses is the key of the group that takes what finds no group.
const otherCauses = ""

// ErrorLog is the failures of a run whose partition has not succeeded since,
// grouped by cause, in order of appearance. It never changes once in a snapshot. A
// group whose ranges are full counts further failures without their partitions, and
// one that fails again counts again.
type ErrorLog struct {
	Groups []ErrorEntry `json:"groups"`
}

// ErrorEntry is one group.
type ErrorEntry struct {
	Key   string            `json:"key"` // what its failures have in common
	Kind  sheaf.FailureKind `json:"kind"`
	Group sheaf.ErrorGroup  `json:"group"`
}

// ErrorItem is one failure.
type ErrorItem struct {
	Kind     sheaf.FailureKind
	ExitCode int32 // -1 is none
	Message  string
	Stderr   string // last lines
}

// key is what failures with one cause share: digits differ between partitions.
func (e ErrorItem) key() string {
	var b strings.Builder
	b.WriteString(e.Kind.String())
	b.WriteByte(' ')
	b.WriteString(strconv.Itoa(int(e.ExitCode)))
	b.WriteByte(' ')
	digits := false
	for _, c := range e.Message {
		if c >= '0' && c <= '9' {
			if !digits {
				b.WriteByte('#')
			}
			digits = true
			continue
		}
		digits = false
		b.WriteRune(c)
	}
	return b.String()
}

// Failed records that a try of partition i failed.
func (r *RunTxn) Failed(i int, e ErrorItem) {
	r.Succeeded(i)
	log := r.ownErrors()
	key := e.key()
	at := slices.IndexFunc(log.Groups, func(g ErrorEntry) bool { return g.Key == key })
	if at < 0 {
		if len(log.Groups) >= MaxErrorGroups-1 {
			key = otherCauses
			at = slices.IndexFunc(log.Groups, func(g ErrorEntry) bool { return g.Key == key })
		}
		if at < 0 {
			g := sheaf.ErrorGroup{Message: e.Message, Example: e.Stderr}
			if key == otherCauses {
				g.Message = "other causes, for example: " + e.Message
			} else if e.ExitCode >= 0 {
				code := int(e.ExitCode)
				g.ExitCode = &code
			}
			log.Groups = append(log.Groups, ErrorEntry{Key: key, Kind: e.Kind, Group: g})
			at = len(log.Groups) - 1
		}
	}
	g := &log.Groups[at].Group
	g.Count++
	if g.Example == "" {
		g.Example = e.Stderr
	}
	g.Partitions = include(g.Partitions, i)
}

// Succeeded forgets the failure of partition i, if one is recorded.
func (r *RunTxn) Succeeded(i int) {
	if r.Errors == nil {
		return
	}
	for at := range r.Errors.Groups {
		if r.Errors.Groups[at].Group.Partitions.Contains(i) {
			log := r.ownErrors()
			g := &log.Groups[at].Group
			g.Count--
			g.Partitions = exclude(g.Partitions, i)
			if g.Count == 0 {
				log.Groups = slices.Delete(log.Groups, at, at+1)
			}
			return
		}
	}
}

// ForgetErrors drops all failures.
func (r *RunTxn) ForgetErrors() {
	if r.Errors != nil {
		r.Change().Errors = nil
	}
}

// ownErrors gives the log for writing.
func (r *RunTxn) ownErrors() *ErrorLog {
	if !r.errors {
		own := &ErrorLog{}
		if r.Errors != nil {
			own.Groups = slices.Clone(r.Errors.Groups)
			for i := range own.Groups {
				g := &own.Groups[i].Group
				g.Partitions = slices.Clone(g.Partitions)
			}
		}
		r.Change().Errors = own
		r.errors = true
	}
	return r.Errors
}

// include adds i to r, in place. A list that is full stays as it is.
func include(r sheaf.Ranges, i int) sheaf.Ranges {
	at, in := slices.BinarySearchFunc(r, i, func(x sheaf.Range, i int) int {
		switch {
		case x.Last < i:
			return -1
		case x.First > i:
			return 1
		}
		return 0
	})
	if in {
		return r
	}
	left := at > 0 && r[at-1].Last == i-1
	right := at < len(r) && r[at].First == i+1
	switch {
	case left && right:
		r[at-1].Last = r[at].Last
		return slices.Delete(r, at, at+1)
	case left:
		r[at-1].Last = i
		return r
	case right:
		r[at].First = i
		return r
	case len(r) >= MaxErrorRanges:
		return r
	}
	return slices.Insert(r, at, sheaf.Range{First: i, Last: i})
}

// exclude takes i, which is in r, out of it, in place.
func exclude(r sheaf.Ranges, i int) sheaf.Ranges {
	at := slices.IndexFunc(r, func(x sheaf.Range) bool { return i >= x.First && i <= x.Last })
	x := r[at]
	switch {
	case x.First == x.Last:
		return slices.Delete(r, at, at+1)
	case i == x.First:
		r[at].First++
	case i == x.Last:
		r[at].Last--
	default:
		r[at].Last = i - 1
		if len(r) >= MaxErrorRanges {
			return r
		}
		return slices.Insert(r, at+1, sheaf.Range{First: i + 1, Last: x.Last})
	}
	return r
}
