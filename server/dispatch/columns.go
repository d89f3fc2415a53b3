package dispatch

import (
	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/server/fsm"
	"github.com/sheaf-run/agent/sheaf"
)

// maxRanges is how many ranges one Release holds: three varints each, they fit a
// command of 64 KiB with the names of the runs.
const maxRanges = 2048

// releases makes the commands that end executions of a node. The last says
// that the session is reconciled, where it is.
func releases(node sheaf.NodeID, session uint64, free, lost []*wire.Executions, reconciled bool) []*fsm.Release {
	fresh := func() *fsm.Release { return &fsm.Release{Node: string(node), Session: session} }
	all := []*fsm.Release{fresh()}
	room := maxRanges
	add := func(e *wire.Executions, put func(*fsm.Release, *wire.Executions)) {
		for len(e.First) > 0 {
			if room == 0 {
				all, room = append(all, fresh()), maxRanges
			}
			n := min(room, len(e.First))
			put(all[len(all)-1], part(e, 0, n))
			room -= n
			e = part(e, n, len(e.First))
		}
	}
	for _, e := range free {
		add(e, func(r *fsm.Release, e *wire.Executions) { r.Free = append(r.Free, e) })
	}
	for _, e := range lost {
		add(e, func(r *fsm.Release, e *wire.Executions) { r.Lost = append(r.Lost, e) })
	}
	if !reconciled && room == maxRanges {
		return nil
	}
	all[len(all)-1].Reconciled = reconciled
	return all
}

// Free makes the commands that end executions of a node at no cost.
func Free(node sheaf.NodeID, session uint64, free []*wire.Executions) []*fsm.Release {
	return releases(node, session, free, nil, false)
}

// like is an empty list of the same run and kind.
func like(e *wire.Executions) *wire.Executions {
	return &wire.Executions{Run: e.Run, Generation: e.Generation, Kind: e.Kind}
}

// part is the ranges lo to hi of e; it shares their columns.
func part(e *wire.Executions, lo, hi int) *wire.Executions {
	p := like(e)
	p.First, p.Count, p.Attempt = e.First[lo:hi:hi], e.Count[lo:hi:hi], e.Attempt[lo:hi:hi]
	return p
}

// count is how many executions e names.
func count(e *wire.Executions) int {
	n := 0
	for _, c := range e.Count {
		n += int(c)
	}
	return n
}

// each calls f for every execution that e names. Columns of unequal length end at the
// shortest: they come from the network.
func each(e *wire.Executions, f func(item)) {
	for i := range min(len(e.First), len(e.Count), len(e.Attempt)) {
		for p := range min(e.Count[i], sheaf.MaxPartitions) {
			f(item{e.Kind, e.First[i] + p, e.Attempt[i]})
		}
	}
}

// cut divides e after n executions; rest is nil if there are no more.
func cut(e *wire.Executions, n int) (head, rest *wire.Executions) {
	for i, c := range e.Count {
		if n >= int(c) {
			n -= int(c)
			continue
		}
		head = part(e, 0, i)
		rest = part(e, i, len(e.First))
		if n > 0 {
			head.First = append(head.First, e.First[i])
			head.Count = append(head.Count, uint32(n))
			head.Attempt = append(head.Attempt, e.Attempt[i])
			rest.First = append([]uint32(nil), rest.First...)
			rest.Count = append([]uint32(nil), rest.Count...)
			rest.First[0] += uint32(n)
			rest.Count[0] -= uint32(n)
		}
		return head, rest
	}
	return e, nil
}
