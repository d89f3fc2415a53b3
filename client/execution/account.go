package execution

import (
	"math"

	"github.com/sheaf-run/agent/sheaf"
)

// Need is what one execution takes of the node while it goes on.
type Need struct {
	CPU    int64 // MHz
	Memory int64 // bytes
	Disk   int64 // bytes, of the shard and of what it may write
	Pids   int64
}

// NeedOf is what a task asks for, without its shard's bytes.
func NeedOf(r sheaf.Resources) Need {
	return Need{CPU: int64(r.CPU), Memory: int64(r.Memory), Disk: int64(r.Disk), Pids: int64(r.Pids)}
}

func (n Need) plus(m Need) Need {
	return Need{n.CPU + m.CPU, n.Memory + m.Memory, n.Disk + m.Disk, n.Pids + m.Pids}
}

func (n Need) minus(m Need) Need {
	return Need{n.CPU - m.CPU, n.Memory - m.Memory, n.Disk - m.Disk, n.Pids - m.Pids}
}

// within reports whether n is at most m in each respect.
func (n Need) within(m Need) bool {
	return n.CPU <= m.CPU && n.Memory <= m.Memory && n.Disk <= m.Disk && n.Pids <= m.Pids
}

// times is how often n goes into m, at least 0.
func (n Need) times(m Need) int {
	k := int64(math.MaxInt32)
	for _, d := range [...][2]int64{{n.CPU, m.CPU}, {n.Memory, m.Memory}, {n.Disk, m.Disk}, {n.Pids, m.Pids}} {
		if d[0] > 0 {
			k = min(k, d[1]/d[0])
		}
	}
	return int(max(k, 0))
}

// share is the largest part that n takes of any one thing in total: its
// dominant share, between 0 and 1 where it fits.
func (n Need) share(total Need) float64 {
	s := 0.0
	for _, d := range [...][2]int64{{n.CPU, total.CPU}, {n.Memory, total.Memory}, {n.Disk, total.Disk}, {n.Pids, total.Pids}} {
		if d[1] > 0 {
			s = max(s, float64(d[0])/float64(d[1]))
		}
	}
	return s
}

// Accountant keeps the node's capacity. What is taken never exceeds the total.
type Accountant struct {
	total, used Need
	slots       int // over 0: capacity is a count, whatever executions ask for
	taken       int // executions that hold something
}

// NewAccountant has the whole of total free. With slots over 0 it counts
// executions instead.
func NewAccountant(total Need, slots int) Accountant {
	return Accountant{total: total, slots: slots}
}

// Fits reports whether n is free now.
func (a *Accountant) Fits(n Need) bool {
	if a.slots > 0 {
		return a.taken < a.slots
	}
	return n.within(a.total.minus(a.used))
}

// Ever reports whether n fits a node on which nothing else runs.
func (a *Accountant) Ever(n Need) bool { return a.slots > 0 || n.within(a.total) }

// Slots is how many executions that need n fit at once.
func (a *Accountant) Slots(n Need) int {
	if a.slots > 0 {
		return a.slots
	}
	return n.times(a.total)
}

// Take reserves n, which must fit unless it is held already by an execution
// that was re-attached.
func (a *Accountant) Take(n Need) {
	a.used = a.used.plus(n)
	a.taken++
}

// Give returns what Take reserved.
func (a *Accountant) Give(n Need) {
	a.used = a.used.minus(n)
	a.taken--
	if a.taken < 0 || a.used.CPU < 0 || a.used.Memory < 0 || a.used.Disk < 0 || a.used.Pids < 0 {
		panic("execution: more capacity was given back than taken")
	}
}

// Full reports whether nothing at all can begin.
func (a *Accountant) Full() bool { return a.slots > 0 && a.taken >= a.slots }
