package broker

import (
	"cmp"
	"slices"
	"time"

	"github.com/sheaf-run/agent/sheaf"
)

const (
	// leaseTime is how long an evaluator may work without a sign of life. An
	// evaluation takes milliseconds; a stalled disk may hold up its plan for seconds.
	leaseTime = 30 * time.Second
	// retryFirst and retryMost bound the pauses after an evaluation that failed.
	retryFirst = 250 * time.Millisecond
	retryMost  = 30 * time.Second
	// maxNacks is after how many failures in a row an evaluation is laid aside: until
	// something happens to its run, or deadTime has passed.
	maxNacks = 8
	deadTime = 5 * time.Minute
	// weightOf a priority is the priority itself plus this, so that priority 100
	// gets about ten times what priority 1 gets, not a hundred times.
	weightFloor = 10
)

// Share says whose turn an evaluation counts as.
type Share struct {
	Namespace string
	Priority  int // 1..100
}

// Lease is the right to evaluate a run. It is void once it is given back, expires, or the term ends.
type Lease struct {
	Run    sheaf.RunID
	number uint64
}

// Failed is an evaluation that was laid aside.
type Failed struct {
	Run   sheaf.RunID
	Nacks int
	Cause string
}

// task is the one evaluation that a run may have. It is idle, queued or leased; a
// queued one waits for its time first, then for its turn.
type task struct {
	run       sheaf.RunID
	share     Share
	queued    bool
	again     bool      // something happened while it was leased
	later     time.Time // of what was asked for while it was leased, the earliest; zero is nothing
	lease     uint64    // 0 when not leased
	deadline  time.Time // of the lease
	notBefore time.Time // of a queued one; zero is at once
	nacks     int
	cause     string // of the last nack
	dead      bool
	pass      float64 // the run's virtual time within its namespace
	stamp     uint64  // of its newest entry in a heap; older ones are void
}

// space is a namespace with its virtual time: what it was given, by weight.
type space struct {
	name  string
	pass  float64
	floor float64 // pass of the run last handed out: others start there, not at 0
	tasks int
	turn  entries // of queued tasks whose time has come, by pass
}

// Queue is the pure core: evaluations by run, at most one each, handed out fairly. What
// each namespace, and within it each run, was given is charged against its weight;
// whoever was given least is next. It has no clock and no lock. A step costs the
// logarithm of the runs, plus the namespaces.
type Queue struct {
	tasks  map[sheaf.RunID]*task
	spaces map[string]*space
	timed  entries // of leases and of queued tasks whose time has not come, by time
	floor  float64 // pass of the namespace last handed out
	count  uint64  // of leases and stamps
}

// NewQueue makes an empty queue.
func NewQueue() *Queue {
	return &Queue{tasks: map[sheaf.RunID]*task{}, spaces: map[string]*space{}}
}

// Enqueue asks for an evaluation of a run. One that waits already is enough; one that is
// under way is followed by another. It ends the laying aside of a run's evaluation.
func (q *Queue) Enqueue(run sheaf.RunID, share Share) { q.enqueue(run, share, time.Time{}) }

// EnqueueAt is Enqueue for a later time. An earlier one that waits already stays.
func (q *Queue) EnqueueAt(run sheaf.RunID, share Share, at time.Time) { q.enqueue(run, share, at) }

func (q *Queue) enqueue(run sheaf.RunID, share Share, at time.Time) {
	t := q.tasks[run]
	if t == nil {
		s := q.spaces[share.Namespace]
		if s == nil {
			s = &space{name: share.Namespace, pass: q.floor}
			q.spaces[share.Namespace] = s
		}
		s.tasks++
		t = &task{run: run, share: share}
		q.tasks[run] = t
	}
	t.share.Priority = share.Priority
	switch {
	case t.lease != 0 && at.IsZero():
		t.again = true
		return
	case t.lease != 0:
		if t.later.IsZero() || at.Before(t.later) {
			t.later = at
		}
		return
	case t.nacks > 0 && !t.dead: // its pause holds
		return
	case t.queued && !t.dead && !t.notBefore.After(at):
		return
	}
	if t.dead {
		t.dead, t.nacks = false, 0
	}
	q.wait(t, at)
}

// wait queues a task for a time; zero is now.
func (q *Queue) wait(t *task, at time.Time) {
	t.queued, t.notBefore = true, at
	q.count++
	t.stamp = q.count
	if !at.IsZero() {
		q.timed.push(entry{at: at, run: t.run, stamp: t.stamp})
		return
	}
	s := q.spaces[t.share.Namespace]
	if len(s.turn) == 0 {
		s.pass = max(s.pass, q.floor)
	}
	t.pass = max(t.pass, s.floor)
	s.turn.push(entry{pass: t.pass, run: t.run, stamp: t.stamp})
}

// Forget drops a run's evaluation; a lease on it is void.
func (q *Queue) Forget(run sheaf.RunID) {
	t := q.tasks[run]
	if t == nil {
		return
	}
	delete(q.tasks, run)
	s := q.spaces[t.share.Namespace]
	if s.tasks--; s.tasks == 0 {
		delete(q.spaces, s.name)
	}
}

// Next leases the evaluation whose turn it is. Without one, wake says when there
// will be one of itself; zero is never.
func (q *Queue) Next(now time.Time) (l Lease, ok bool, wake time.Time) {
	for len(q.timed) > 0 {
		e := q.timed[0]
		t := q.tasks[e.run]
		if t == nil || t.stamp != e.stamp {
			q.timed.pop()
			continue
		}
		due := t.notBefore
		if t.lease != 0 {
			due = t.deadline // may have been extended since the entry was made
		}
		if due.After(now) {
			if due.Equal(e.at) {
				wake = due
				break
			}
			q.timed.pop()
			q.timed.push(entry{at: due, run: e.run, stamp: e.stamp})
			continue
		}
		q.timed.pop()
		if t.lease != 0 {
			q.fail(t, now, "the evaluator gave no sign of life")
		} else {
			t.dead = false
			q.wait(t, time.Time{})
		}
	}
	var best *space
	for _, s := range q.spaces {
		for len(s.turn) > 0 {
			if t := q.tasks[s.turn[0].run]; t != nil && t.stamp == s.turn[0].stamp {
				break
			}
			s.turn.pop()
		}
		if len(s.turn) > 0 && (best == nil || cmp.Or(cmp.Compare(s.pass, best.pass), cmp.Compare(s.name, best.name)) < 0) {
			best = s
		}
	}
	if best == nil {
		return Lease{}, false, wake
	}
	t := q.tasks[best.turn.pop().run]
	q.floor, best.floor = max(q.floor, best.pass), max(best.floor, t.pass)
	q.count++
	t.lease, t.stamp = q.count, q.count
	t.queued, t.again, t.later = false, false, time.Time{}
	t.deadline = now.Add(leaseTime)
	q.timed.push(entry{at: t.deadline, run: t.run, stamp: t.stamp})
	return Lease{t.run, t.lease}, true, time.Time{}
}

// Extend gives a busy evaluator more time. It reports whether the lease holds.
func (q *Queue) Extend(l Lease, now time.Time) bool {
	t := q.leased(l)
	if t != nil {
		t.deadline = now.Add(leaseTime)
	}
	return t != nil
}

// Ack ends an evaluation that placed so many executions, which are charged to
// its run and namespace.
func (q *Queue) Ack(l Lease, placed int) {
	t := q.leased(l)
	if t == nil {
		return
	}
	// Evaluating costs something too: a run that can place nothing must not stand first for ever.
	cost := float64(placed+1) / float64(weightFloor+t.share.Priority)
	t.pass += cost
	q.spaces[t.share.Namespace].pass += cost
	t.lease, t.stamp, t.nacks, t.cause = 0, 0, 0, ""
	if t.again || !t.later.IsZero() {
		if t.again {
			t.later = time.Time{}
		}
		q.wait(t, t.later)
	}
}

// Nack ends an evaluation that failed; it comes again after a pause.
func (q *Queue) Nack(l Lease, now time.Time, cause string) {
	if t := q.leased(l); t != nil {
		q.fail(t, now, cause)
	}
}

func (q *Queue) fail(t *task, now time.Time, cause string) {
	t.lease, t.cause = 0, cause
	t.nacks++
	pause := min(retryMost, retryFirst<<min(t.nacks-1, 16))
	if t.nacks >= maxNacks {
		t.dead, pause = true, deadTime
	}
	q.wait(t, now.Add(pause))
}

func (q *Queue) leased(l Lease) *task {
	if t := q.tasks[l.Run]; t != nil && l.number != 0 && t.lease == l.number {
		return t
	}
	return nil
}

// Dead are the evaluations laid aside.
func (q *Queue) Dead() []Failed {
	var f []Failed
	for _, t := range q.tasks {
		if t.dead {
			f = append(f, Failed{t.run, t.nacks, t.cause})
		}
	}
	return f
}

// Evaluations are all that there are, by run; those of runs that need nothing are left out.
func (q *Queue) Evaluations() []sheaf.Evaluation {
	all := make([]sheaf.Evaluation, 0, len(q.tasks))
	for _, t := range q.tasks {
		e := sheaf.Evaluation{Run: t.run, Namespace: t.share.Namespace, Priority: t.share.Priority, Failures: t.nacks, Cause: t.cause}
		switch {
		case t.lease != 0:
			e.Status = sheaf.EvaluationRunning
		case !t.queued:
			continue
		case t.dead:
			e.Status = sheaf.EvaluationAside
		case t.nacks > 0:
			e.Status = sheaf.EvaluationFailing
		case !t.notBefore.IsZero():
			e.Status = sheaf.EvaluationWaiting
		default:
			e.Status = sheaf.EvaluationQueued
		}
		if t.queued && !t.notBefore.IsZero() {
			at := t.notBefore.UTC()
			e.Due = &at
		}
		all = append(all, e)
	}
	slices.SortFunc(all, func(a, b sheaf.Evaluation) int { return cmp.Compare(a.Run, b.Run) })
	return all
}

// Failing is the cause of the last failure of a run's evaluation, if it fails.
func (q *Queue) Failing(run sheaf.RunID) string {
	if t := q.tasks[run]; t != nil {
		return t.cause
	}
	return ""
}
