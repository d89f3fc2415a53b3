package straggler

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/sheaf-run/agent/sheaf"
)

// The bounds of what is done about a tail. What they are worth is measured by e2e/tails.
const (
	// MaxExtra is the share of a run's work that may be done twice: the time in which two attempts at
	// a partition run side by side, beside the time of all attempts.
	MaxExtra = 0.05
	// leastAge is how long something has run before it can be slow: below, a second attempt takes
	// longer to place than it gains.
	leastAge = time.Second
	// slowShare of a run's partitions may still run when what is slow is told from what is merely
	// not over yet: with more of them running, those that ended are the quick ones.
	slowShare = 0.25
	// timesTypical is how many times the typical duration (the median) something has run before it can be slow.
	timesTypical = 2
	// gain is how many times as long as a second attempt the first must still be expected to take.
	gain = 1.5
	// hopeless is the same while there is other work of the run to do, instead of which the second attempt runs.
	hopeless = 80
	// leastWait is how long what waits at a node must be expected to wait before it is taken back.
	leastWait = 250 * time.Millisecond
	// maxTries is how many second attempts there may be at one partition, one after the other: where several
	// nodes are slow with it, it is the partition that is slow.
	maxTries = 3
	// MaxLooked is how many running partitions, the longest first, are looked at.
	MaxLooked = 1024
)

// Running is an attempt that runs.
type Running struct {
	Partition int
	Attempt   uint32
	Node      sheaf.NodeID
	Age       time.Duration
	Class     uint8 // of its shard
	Doubled   bool  // the partition has a second valid attempt
	Second    Second
}

// Second is the second attempt at a partition that has one.
type Second struct {
	Node  sheaf.NodeID
	Age   time.Duration // 0 where it is not known to run
	Tried int           // second attempts that were given up for it
}

// Node is a node that may have work of the run.
type Node struct {
	ID       sheaf.NodeID
	Able     bool    // the run may be placed there
	Slots    int     // how many of the run's executions it runs at once
	Assigned int     // valid executions of the run there
	Load     float64 // executions of all runs there, as a share of what it runs at once
	Slowness float64 // how long the run's partitions take there beside elsewhere; 0 is not known
	Failed   int     // executions of the run that failed there, lately
}

// idle is how many more executions of the run would begin there at once.
func (n *Node) idle() int {
	if !n.Able {
		return 0
	}
	busy := max(n.Load, float64(n.Assigned)/float64(max(n.Slots, 1)))
	return max(0, int(float64(n.Slots)*(1-busy)+0.001))
}

// Request is how one run stands.
type Request struct {
	Backups   bool // the job allows them
	Pending   int  // partitions that are not placed
	Durations *Sketch
	Running   []Running // the longest first, at most MaxLooked, without second attempts
	Under     int       // attempts under way, which may be more than those listed
	// Doubles is how many partitions have two valid attempts, and Extra how long such pairs have run side
	// by side so far.
	Doubles int
	Extra   time.Duration
	// Nodes gives the nodes; it is called once at most, and not where nothing can be done.
	Nodes func() []Node
}

// Backup is a second attempt that is worth it.
type Backup struct {
	Partition int
	Node      sheaf.NodeID
	Instead   bool // of the one that the partition has, which is to be ended
	Why       string
}

// TakeBack is how many executions that have not begun a node had better give back.
type TakeBack struct {
	Node sheaf.NodeID
	Most int
}

// Plan is what to do now.
type Plan struct {
	Backups  []Backup
	TakeBack []TakeBack
	// Again is after how long something that runs may have become slow; 0 is never as things stand.
	Again time.Duration
}

// Decide says what to do about a run's tail. The same request gives the same plan.
func Decide(r Request) Plan {
	var p Plan
	var list []slow
	if r.Backups {
		list, p.Again = slowest(&r)
	}
	if r.Durations.Len() == 0 || len(list) == 0 && r.Pending > 0 {
		return p
	}
	nodes := r.Nodes()
	free := spare(nodes)
	if r.Pending == 0 {
		p.TakeBack = takeBack(&r, nodes, free)
	}
	backups(&r, list, nodes, free, &p)
	return p
}

// spare are the idle slots, a node for each: those where the run goes well first.
func spare(nodes []Node) []sheaf.NodeID {
	var able []*Node
	for i := range nodes {
		if nodes[i].idle() > 0 {
			able = append(able, &nodes[i])
		}
	}
	slices.SortFunc(able, better)
	var free []sheaf.NodeID
	for round := 0; len(able) > 0 && len(free) < MaxLooked; round++ {
		able = slices.DeleteFunc(able, func(n *Node) bool { return n.idle() <= round })
		for _, n := range able {
			free = append(free, n.ID)
		}
	}
	return free
}

// better orders nodes for what shall not be slow again.
func better(a, b *Node) int {
	slow := func(n *Node) float64 { return math.Round(4 * max(n.Slowness, 1)) } // by quarters: less is chance
	return cmp.Or(cmp.Compare(a.Failed, b.Failed), cmp.Compare(slow(a), slow(b)), cmp.Compare(a.Load, b.Load), cmp.Compare(a.ID, b.ID))
}

// takeBack gets what waits at busy nodes for nodes that have nothing to do, where it would wait the longest first.
func takeBack(r *Request, nodes []Node, free []sheaf.NodeID) []TakeBack {
	typical := r.Durations.mean()
	if len(free) == 0 || typical == 0 {
		return nil
	}
	type queue struct {
		node    *Node
		waiting int
		each    float64 // ms until one of it begins
	}
	var queues []queue
	for i := range nodes {
		n := &nodes[i]
		waiting := n.Assigned - n.Slots
		each := typical * max(n.Slowness, 1) / float64(max(n.Slots, 1))
		if waiting <= 0 || n.Slots == 0 || each*float64(waiting) < float64(leastWait.Milliseconds()) {
			continue
		}
		queues = append(queues, queue{n, waiting, each})
	}
	taken := make([]int, len(queues))
	for range free {
		most, at := 0.0, -1
		for i, q := range queues {
			if left := float64(q.waiting-taken[i]) * q.each; left > most {
				most, at = left, i
			}
		}
		if at < 0 {
			break
		}
		taken[at]++
	}
	var out []TakeBack
	for i, q := range queues {
		if taken[i] > 0 {
			out = append(out, TakeBack{q.node.ID, taken[i]})
		}
	}
	return out
}

// mean is the mean duration of all classes, in ms.
func (s *Sketch) mean() float64 {
	if s.n == 0 {
		return 0
	}
	return s.sumMs / float64(s.n)
}

// slow is something that runs and how much longer it is expected to, beside a second attempt.
type slow struct {
	*Running
	age, left, anew float64 // ms; of a pair, those of the younger
	// hopeless says that a second attempt is worth it even instead of other work.
	hopeless bool
}

// slowest lists what may get a second attempt, that with the most to gain first, and says when to
// look again at what may by then.
func slowest(r *Request) (list []slow, next time.Duration) {
	if float64(r.Under-r.Doubles) > slowShare/(1-slowShare)*float64(r.Durations.Len()) {
		return nil, 0 // an end that changes it is looked at
	}
	var known [classes]estimate
	var typical [classes]float64
	for i := range r.Running {
		x := &r.Running[i]
		age, ok := x.judged()
		if !ok {
			continue
		}
		c := min(x.Class, classes-1)
		if typical[c] == 0 {
			known[c] = r.Durations.of(c)
			typical[c] = max(known[c].quantile(0.5), 1)
		}
		e, anew := known[c], typical[c]
		if from := max(timesTypical*anew, float64(leastAge.Milliseconds())); age < from {
			next = sooner(next, from-age)
			continue
		}
		left := e.remaining(age)
		switch {
		case left >= hopeless*anew:
			list = append(list, slow{x, age, left, anew, true})
		case left >= gain*anew && r.Pending == 0:
			list = append(list, slow{x, age, left, anew, false})
		default:
			next = sooner(next, age/4) // what is left of it grows with its age, where it grows at all
		}
	}
	slices.SortStableFunc(list, func(a, b slow) int { return cmp.Compare(b.left/b.anew, a.left/a.anew) })
	return list, next
}

// judged is the age in ms by which it is told whether another attempt is worth it: that of the only one, and of the
// younger of a pair. The first of a pair is never given up: where the partition itself is slow, it is the nearest to its end.
func (x *Running) judged() (ms float64, ok bool) {
	if !x.Doubled {
		return float64(x.Age.Milliseconds()), true
	}
	return float64(min(x.Age, x.Second.Age).Milliseconds()), x.Second.Age > 0 && x.Second.Tried+1 < maxTries
}

// leastAgain bounds how often a run is looked at for its age alone.
const leastAgain = 250 * time.Millisecond

// sooner is the earlier of two times from now, of which 0 is never.
func sooner(next time.Duration, ms float64) time.Duration {
	d := max(milliseconds(ms), leastAgain)
	if next == 0 {
		return d
	}
	return min(d, next)
}

// backups places second attempts within the bound on extra work: what pairs have cost, and each that there is then is
// expected to cost yet. One pair may always be, but not for its second to be given up.
func backups(r *Request, list []slow, nodes []Node, free []sheaf.NodeID, p *Plan) {
	work := r.Durations.SumMs()
	for i := range r.Running {
		work += float64(r.Running[i].Age.Milliseconds())
	}
	extra, doubles := float64(r.Extra.Milliseconds()), r.Doubles
	for _, x := range list {
		then := doubles + 1
		if x.Doubled {
			then = doubles
		}
		if doubles > 0 && extra+float64(then)*x.anew > MaxExtra*work {
			p.Again = sooner(p.Again, max(x.age/8, x.anew/2)) // unless an end comes first
			return
		}
		var to sheaf.NodeID
		if to, free = elsewhere(x, nodes, free); to == "" {
			p.Again = sooner(p.Again, x.age/4) // unless a slot becomes free first
			continue
		}
		doubles = then
		p.Backups = append(p.Backups, Backup{Partition: x.Partition, Node: to, Instead: x.Doubled, Why: because(x)})
	}
}

// elsewhere is another node with a slot to spare; for what is hopeless, any other node.
func elsewhere(x slow, nodes []Node, free []sheaf.NodeID) (sheaf.NodeID, []sheaf.NodeID) {
	for i, n := range free {
		if x.elsewhere(n) {
			return n, slices.Delete(free, i, i+1)
		}
	}
	var best *Node
	for i := range nodes {
		if n := &nodes[i]; x.hopeless && n.Able && x.elsewhere(n.ID) && (best == nil || better(n, best) < 0) {
			best = n
		}
	}
	if best == nil {
		return "", free
	}
	return best.ID, free
}

// elsewhere reports whether the partition has no attempt on that node.
func (x *Running) elsewhere(n sheaf.NodeID) bool {
	return n != x.Node && !(x.Doubled && n == x.Second.Node)
}

func because(x slow) string {
	what, node, age := "it", x.Node, x.Age
	if x.Doubled {
		what, node, age = "the second attempt before this one", x.Second.Node, x.Second.Age
	}
	return fmt.Sprintf("%s had been running for %v on node %s, and half of its like took under %v", what, rounded(float64(age.Milliseconds())), node, rounded(x.anew))
}

// rounded is a duration in ms as people say it.
func rounded(ms float64) time.Duration {
	d := time.Duration(ms * float64(time.Millisecond))
	switch {
	case d >= time.Minute:
		return d.Round(time.Second)
	case d >= 10*time.Second:
		return d.Round(100 * time.Millisecond)
	}
	return d.Round(time.Millisecond)
}
