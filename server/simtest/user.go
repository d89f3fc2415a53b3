package simtest

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/server/fsm"
	"github.com/sheaf-run/agent/sheaf"
)

// user submits runs and changes its mind.
type user struct {
	w    *world
	runs []submitted
}

type submitted struct {
	id         string
	job        []byte
	partitions int
	space      string
	held       bool // submitted so
	rerun      bool
	refusable  bool // what it comes after, or the nodes it is for, may not be there
	refused    bool
	known      bool // acknowledged: from here on it may never be missing
	deleted    bool
}

func (u *user) partitions(run string) int {
	for _, r := range u.runs {
		if r.id == run {
			return r.partitions
		}
	}
	return 0
}

func (u *user) start() {
	for range 2 {
		u.submit()
	}
	u.act()
}

// act does one thing now and then, until the faults end.
func (u *user) act() {
	w := u.w
	if w.calm {
		return
	}
	w.after(w.between(150, 900), u.act)
	n := w.rng.IntN(20)
	if n < 6 && len(u.runs) < 8 {
		u.submit()
		return
	}
	r := &u.runs[w.rng.IntN(len(u.runs))]
	switch n {
	case 6: // the same again, or another under the same name
		u.put(r, r.known && w.chance(3))
	case 7:
		u.ask(&fsm.Command{Body: &fsm.Command_CancelRun{CancelRun: &fsm.CancelRun{Run: r.id}}})
	case 8, 9, 10, 11:
		c := &fsm.RetryRun{Run: r.id, Which: fsm.RetryRun_Which(w.rng.IntN(3))}
		if c.Which == fsm.RetryRun_WHICH_PARTITIONS {
			c.First, c.Count = []uint32{uint32(w.rng.IntN(6))}, []uint32{uint32(w.rng.IntN(5))}
		}
		w.out.Retries++
		u.ask(&fsm.Command{Body: &fsm.Command_RetryRun{RetryRun: c}})
	case 12:
		node := w.clients[w.rng.IntN(len(w.clients))].id
		c := eligible(node)
		c.GetSetNodeEligibility().Eligible = w.chance(2)
		u.ask(c)
	case 13:
		u.ask(&fsm.Command{Body: &fsm.Command_SetImageDigest{SetImageDigest: &fsm.SetImageDigest{Run: r.id, Digest: fmt.Sprintf("sha256:%d", w.rng.IntN(2))}}})
	case 14:
		node := w.clients[w.rng.IntN(len(w.clients))]
		c := &fsm.NodePrepareFailed{Run: r.id, Node: string(node.id), Session: node.session, Error: "no such image", Invalid: w.chance(8)}
		if s := w.snap().Run(sheaf.RunID(r.id)); s != nil && s.Status == sheaf.RunReducing {
			c.Kind = wire.Kind_KIND_REDUCE
		}
		u.ask(&fsm.Command{Body: &fsm.Command_NodePrepareFailed{NodePrepareFailed: c}})
	case 16, 17, 18:
		u.ask(u.adjust(r.id))
	case 15:
		if s := w.snap().Run(sheaf.RunID(r.id)); s != nil && s.Status.Terminal() && w.chance(2) {
			if free, _ := w.snap().Deletable([]sheaf.RunID{s.ID}); len(free) == 0 { // refused, or by then somebody has let go of it
				u.ask(&fsm.Command{Body: &fsm.Command_DeleteRun{DeleteRun: &fsm.DeleteRun{Run: r.id}}})
				r.deleted = true
				return
			}
			r.deleted = true
			u.ask(&fsm.Command{Body: &fsm.Command_DeleteRun{DeleteRun: &fsm.DeleteRun{Run: r.id}}})
			id := r.id
			w.after(w.between(100, 3000), func() { // by then no submission of it is on its way
				u.ask(&fsm.Command{Body: &fsm.Command_ReapRuns{ReapRuns: &fsm.ReapRuns{Runs: []string{id}}}})
			})
		}
	}
}

// adjust changes how a run is scheduled.
func (u *user) adjust(run string) *fsm.Command {
	w := u.w
	c := &fsm.ChangeRun{Run: run}
	if w.chance(2) {
		held := w.chance(2)
		c.Held = &held
	}
	if w.chance(3) {
		n := uint32(w.rng.IntN(102))
		c.Priority = &n
	}
	if w.chance(3) {
		n := uint32(w.rng.IntN(6))
		c.Parallelism = &n
	}
	w.out.Changes++
	return &fsm.Command{Body: &fsm.Command_ChangeRun{ChangeRun: c}}
}

// letGo releases every run, until none is held: the faults are over.
func (u *user) letGo() {
	held := false
	for r := range u.w.snap().LiveRuns() {
		if r.Held() {
			u.ask(&fsm.Command{Body: &fsm.Command_ChangeRun{ChangeRun: &fsm.ChangeRun{Run: string(r.ID), Held: &held}}})
		}
	}
	u.w.after(500, u.letGo)
}

// ask proposes once, if there is a leader.
func (u *user) ask(c *fsm.Command) {
	if l := u.w.leader; l != nil {
		l.propose(c, nil)
	}
}

// namespaces are those that users submit to.
var namespaces = []string{"space0", "space1"}

func (u *user) submit() {
	w := u.w
	n := 1 + w.rng.IntN(40)
	if w.alike() {
		n = 1 + int(w.out.Seed/6%mostAlike)
	}
	namespace := namespaces[w.rng.IntN(len(namespaces))]
	if w.snap().Namespace(namespace) == nil {
		namespace = sheaf.DefaultNamespace // the leader is yet to make it
	}
	job := sheaf.Job{Name: fmt.Sprintf("job%d", w.rng.IntN(3)), Type: sheaf.JobBatch, Namespace: namespace, Datacenters: []string{"*"},
		Priority: 1 + w.rng.IntN(100), Isolation: sheaf.IsolationPartition,
		Task:    sheaf.Task{Name: "t", Driver: "mock", Network: sheaf.NetworkNone, Resources: sheaf.Resources{CPU: 100, Memory: 1 << 20, Disk: 1 << 20, Pids: 4}},
		Retry:   sheaf.Retry{Attempts: 1 + w.rng.IntN(4), Delay: sheaf.Duration(time.Duration(w.rng.IntN(3)) * 200 * time.Millisecond), Backoff: sheaf.BackoffExponential, MaxDelay: sheaf.Duration(time.Second), OtherNode: w.chance(2)},
		Failure: sheaf.Failure{Tolerate: sheaf.Threshold{Count: w.rng.IntN(3)}},
	}
	again := w.out.Seed%3 == 0 // these seeds are mostly about runs of one job
	if again && !w.chance(5) || w.chance(3) {
		job.Split = &sheaf.Split{Glob: "/*", BatchSize: 1, AllowEmpty: w.chance(2)}
		if w.chance(10) {
			n = 0
		}
		if job.Reuse = again || w.chance(2); job.Reuse {
			job.Name, job.Namespace = "reused", sheaf.DefaultNamespace
			if w.chance(6) {
				job.Task.Env = map[string]string{"V": "other"}
			}
		}
	} else {
		job.Count = n
	}
	made := submitted{id: fmt.Sprintf("run%d", len(u.runs)), held: w.chance(10), rerun: job.Reuse && w.chance(6)}
	switch w.rng.IntN(4) {
	case 0:
		job.Parallelism = &sheaf.Parallelism{Constant: 1 + w.rng.IntN(5)}
	case 1:
		job.Parallelism = &sheaf.Parallelism{Coefficient: 0.25 + w.rng.Float64()*2}
	}
	if !job.Reuse && w.chance(6) {
		job.Type, job.Split, job.Count = sheaf.JobOps, nil, 0
		made.refusable = true
	}
	if len(u.runs) > 0 && w.chance(4) {
		before := u.runs[w.rng.IntN(len(u.runs))]
		job.Namespace, job.After = before.space, []string{before.id}
		if w.chance(2) {
			job.After = append(job.After, fmt.Sprintf("job%d", w.rng.IntN(3)))
		}
		made.refusable = true
	}
	if again || !w.chance(3) {
		job.Outputs = []sheaf.Output{{Name: "o", Path: "/o", Merge: sheaf.MergeUnion, OnConflict: sheaf.ConflictError}}
	}
	if len(job.Outputs) > 0 && w.fate("reduce %s", made.id)%3 == 0 {
		job.Reduce = &sheaf.Reduce{Name: "r", Task: job.Task, Outputs: []sheaf.Output{{Name: "p", Path: "/p", Merge: sheaf.MergeUnion, OnConflict: sheaf.ConflictError}}}
	}
	if len(job.Outputs) > 0 && w.fate("publish %s", made.id)%2 == 0 {
		job.Publish = &sheaf.Publish{To: "s3://results"}
	}
	if w.chance(4) {
		job.Failure.StopAfter = &sheaf.Threshold{Count: 1 + w.rng.IntN(3)}
	}
	if !again && w.chance(4) {
		job.Failure.OnExit = []sheaf.ExitPolicy{
			{Codes: []int{1}, Action: []string{sheaf.ActionRetry, sheaf.ActionFailPartition, sheaf.ActionIgnore}[w.rng.IntN(3)]},
			{Codes: []int{2}, Action: []string{sheaf.ActionRetry, sheaf.ActionFailJob}[w.rng.IntN(2)]}}
	}
	if w.chance(6) {
		job.Timeout = sheaf.Duration(time.Duration(1+w.rng.IntN(8)) * time.Second)
	}
	b, err := json.Marshal(job)
	if err != nil {
		panic(err)
	}
	made.job, made.partitions, made.space = b, n, job.Namespace
	u.runs = append(u.runs, made)
	u.put(&u.runs[len(u.runs)-1], false)
}

// put registers a run until it is acknowledged. With other set it tries another
// job under the run's ID, once.
func (u *user) put(r *submitted, other bool) {
	w, id, body := u.w, r.id, r.job
	if other {
		body = append([]byte(" "), body...)
	}
	l := w.leader
	if r.deleted {
		return
	}
	if l == nil {
		if !other {
			w.after(w.between(200, 600), func() { u.put(u.find(id), false) })
		}
		return
	}
	answered := false
	l.propose(&fsm.Command{Body: &fsm.Command_RegisterJob{RegisterJob: &fsm.RegisterJob{Run: id, JobJson: body, Held: r.held, Rerun: r.rerun}}}, func(rep fsm.Reply) {
		answered = true
		r := u.find(id)
		if other && r.known && rep.Err == nil {
			w.fail("run %s was registered again with another job", id)
		}
		if !other && rep.Err != nil && !r.deleted && (r.known || !r.refusable) {
			w.fail("run %s is refused: %v", id, rep.Err)
		}
		r.known = r.known || !other && rep.Err == nil
		r.refused = !other && rep.Err != nil
	})
	if !other {
		w.after(w.between(500, 900), func() {
			if !answered { // the leader is gone: the same again
				w.out.Duplicates++
				u.put(u.find(id), false)
			}
		})
	}
}

func (u *user) find(id string) *submitted {
	for i := range u.runs {
		if u.runs[i].id == id {
			return &u.runs[i]
		}
	}
	panic("no run " + id)
}

func eligible(node sheaf.NodeID) *fsm.Command {
	return &fsm.Command{Body: &fsm.Command_SetNodeEligibility{SetNodeEligibility: &fsm.SetNodeEligibility{Node: string(node), Eligible: true}}}
}
