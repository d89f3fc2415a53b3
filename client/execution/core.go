package execution

import (
	"fmt"
	"time"

	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/sheaf"
)

const (
	// windowLen bounds the fetched shards that wait for space, of one run: enough
	// to begin a batch at once, little enough that shards of a thousand files each cost megabytes.
	windowLen = 64
	// maxOwn bounds splits and merges at once: they read and hash without an account.
	maxOwn = 4
	// patience is how long others may pass a partition that does not fit before
	// space is kept free for it.
	patience = 2 * time.Second
	// YoungAge is the age from which an execution is worth a checkpoint and a look at what it writes.
	YoungAge = time.Second
	// reportAge is the age from which the servers hear that it runs: what ends
	// sooner is told by its result.
	reportAge = 250 * time.Millisecond
	// maxStoring bounds the executions that have ended and wait to be durable; past it nothing
	// begins. A sync of so many takes little longer than of one, and while a disk hangs they
	// would pile up by the ten thousand, at half a kilobyte each.
	maxStoring = 4096
	// fetchPause is the wait after shards could not be had.
	fetchPause = time.Second
)

// Core is all that the client has and is about to do.
type Core struct {
	account Accountant
	runs    map[sheaf.RunID]*Run
	active  []*Run // runs that have something waiting, in no order
	unsent  []*Run // runs that have results to be sent, in no order
	gather  time.Duration
	looked  time.Time // when what runs was last looked at for reports
	live    map[*Execution]struct{}
	owning  int // splits and merges under way
	storing int // executions of partitions in phase Storing

	lease   time.Time // nothing begins after it
	held    bool      // from Hello until Welcome nothing begins, so that what was listed stays true
	refused bool      // the node takes no work at present
	settled time.Time // when rates were last settled
	rate    rate
	floor   float64 // the least pass of the runs that began lately: where a new run starts

	fx Effects
}

// New is a core with nothing in it, for a node of that capacity. It begins
// nothing before its first Welcome.
func New(account Accountant) *Core {
	return &Core{account: account, runs: map[sheaf.RunID]*Run{}, live: map[*Execution]struct{}{}, held: true, gather: sendEvery}
}

// Effects begins what can begin, then hands over what is to be carried out. The
// batches are valid until the next call.
func (c *Core) Effects(now time.Time, into *Effects) {
	c.begin(now)
	c.sendDue(now)
	into.reset()
	*into, c.fx = c.fx, *into
}

// Run is the run of that ID, nil if there is none.
func (c *Core) Run(id sheaf.RunID) *Run { return c.runs[id] }

// Runs calls yield for each run, in no order.
func (c *Core) Runs(yield func(*Run) bool) {
	for _, r := range c.runs {
		if !yield(r) {
			return
		}
	}
}

// Live is how many executions have begun and are not durable.
func (c *Core) Live() int { return len(c.live) }

// Slots is how many executions of r fit at once.
func (c *Core) Slots(r *Run) int { return c.account.Slots(r.Need) }

// Rate is how many executions ended a second, lately.
func (c *Core) Rate() float64 { return c.rate.perSecond }

// Waiting is how many executions have not begun.
func (c *Core) Waiting() int {
	n := 0
	for _, r := range c.active {
		n += r.waiting()
	}
	return n
}

// AddRun makes a run known, or takes its newer spec. With prepare the driver is
// asked again before more of it begins.
func (c *Core) AddRun(spec Spec, prepare bool) *Run {
	r := c.runs[spec.ID]
	if r == nil {
		r = &Run{Spec: spec, live: map[uint64]*Execution{}, going: map[uint32]int{}, ended: map[uint64]*Result{}, own: map[ownKey]*Execution{}, pass: c.floor}
		c.runs[spec.ID] = r
	}
	r.Spec = spec
	r.Weight = max(r.Weight, 1)
	r.over = false
	if prepare && r.gate != gatePreparing {
		r.gate = gateShut
	}
	return r
}

// Assign queues executions. The run must be known; it reports false otherwise.
func (c *Core) Assign(x *wire.Executions, now time.Time) bool {
	r := c.runs[RunKey(sheaf.RunID(x.GetRun()), x.GetKind())]
	if r == nil || !aligned(x) {
		return false
	}
	if isOwn(x.GetKind()) {
		c.assignOwn(r, x, now)
		return true
	}
	if r.waiting() == 0 {
		c.active = append(c.active, r)
		r.pass = max(r.pass, c.floor)
		r.blocked = time.Time{}
	}
	for i := range x.First {
		r.enqueue(span{first: x.First[i], count: x.Count[i], attempt: x.Attempt[i], generation: x.Generation})
	}
	if r.gate == gateFailed {
		r.gate = gateShut
	}
	c.settleActive()
	return true
}

// aligned reports whether the columns of x make sense: they come from the network.
func aligned(x *wire.Executions) bool {
	if len(x.GetFirst()) != len(x.GetCount()) || len(x.GetFirst()) != len(x.GetAttempt()) {
		return false
	}
	for i, first := range x.First {
		if uint64(first)+uint64(x.Count[i]) > sheaf.MaxPartitions {
			return false
		}
	}
	return true
}

// settleActive drops runs that have nothing waiting from the active ones, and
// runs of which nothing is left.
func (c *Core) settleActive() {
	keep := c.active[:0]
	for _, r := range c.active {
		if r.waiting() > 0 {
			keep = append(keep, r)
		}
	}
	clear(c.active[len(keep):])
	c.active = keep
}

// Lease lets executions begin until then.
func (c *Core) Lease(until time.Time) { c.lease = until }

// Refuse says whether the node takes no work at present, as while its disk is full.
func (c *Core) Refuse(refuse bool) { c.refused = refuse }

// Ready reports whether the driver has made the run ready.
func (c *Core) Ready(r *Run) bool { return r.gate == gateOpen }

// AskPrepare says that the driver is to be asked to make a run ready although nothing of it
// waits; false is where that is done, or under way.
func (c *Core) AskPrepare(r *Run) bool {
	if r.gate == gatePreparing || r.gate == gateOpen {
		return false
	}
	r.gate = gatePreparing
	return true
}

// Prepared says that the driver has made the run ready.
func (c *Core) Prepared(r *Run, now time.Time) {
	if r.gate != gatePreparing {
		return
	}
	r.gate = gateOpen
	for _, e := range r.ready {
		c.start(e, now)
	}
	r.ready = nil
	c.forget(r)
}

// PrepareFailed holds the run back until the server assigns more of it.
func (c *Core) PrepareFailed(r *Run) {
	if r.gate == gatePreparing {
		r.gate = gateFailed
	}
	c.forget(r)
}

// Unprepare makes the runs of a driver be prepared anew: its process has ended.
func (c *Core) Unprepare(driver string) {
	for _, r := range c.runs {
		if r.Driver == driver && r.gate != gateFailed {
			r.gate = gateShut
			c.forget(r)
		}
	}
}

// Fetched gives the shards of a Fetch.
func (c *Core) Fetched(r *Run, s Shards) {
	r.fetching = false
	for i := range r.window {
		w := &r.window[i]
		if at := int(w.partition) - int(s.First); w.shard == nil && at >= 0 && at < len(s.Shards) && s.Shards[at] != nil {
			w.shard = s.Shards[at]
			w.bytes = w.shard.Bytes()
		}
	}
}

// FetchFailed leaves the window to be fetched again after a pause.
func (c *Core) FetchFailed(r *Run, now time.Time) {
	r.fetching = false
	r.refetch = now.Add(fetchPause)
}

// find is the execution of an ID that a driver knows.
func (c *Core) find(id string) *Execution {
	run, partition, attempt, ok := ParseID(id)
	if !ok {
		return nil
	}
	for _, kind := range [...]wire.Kind{wire.Kind_KIND_PARTITION, wire.Kind_KIND_REDUCE} {
		if r := c.runs[RunKey(run, kind)]; r != nil && r.live[key(partition, attempt)] != nil {
			return r.live[key(partition, attempt)]
		}
	}
	return nil
}

// Find is the live execution of that ID, nil if there is none.
func (c *Core) Find(id string) *Execution { return c.find(id) }

// RunEnd says that no more of the run will be assigned. What still goes is
// ended. With deleted, its data is no longer wanted either.
func (c *Core) RunEnd(id sheaf.RunID, deleted bool, now time.Time) {
	r := c.runs[id]
	if r == nil {
		return
	}
	if r.Kind() == wire.Kind_KIND_PARTITION {
		c.RunEnd(RunKey(id, wire.Kind_KIND_REDUCE), deleted, now)
	}
	r.over, r.deleted = true, r.deleted || deleted
	r.queue, r.window = queue{}, nil
	c.settleActive()
	for _, e := range r.live {
		c.stop(e, StopKilled, now)
	}
	for k, e := range r.own {
		c.endOwn(r, k, e)
	}
	if r.deleted {
		r.unsent = nil
		for k, res := range r.ended {
			delete(r.ended, k)
			c.fx.Drop = append(c.fx.Drop, res)
		}
	}
	c.forget(r)
}

// Deleted reports whether the run's data is no longer wanted.
func (r *Run) Deleted() bool { return r.deleted }

// forget drops a run that is over and of which nothing is left.
func (c *Core) forget(r *Run) {
	if r.over && r.idle() && c.runs[r.ID] == r && r.gate != gatePreparing && !c.reduces(r) {
		delete(c.runs, r.ID)
		c.fx.Forget = append(c.fx.Forget, r)
		if base := c.runs[r.Of()]; base != nil {
			c.forget(base)
		}
	}
}

// reduces reports whether something of the run's reduce is here, which needs what the run has.
func (c *Core) reduces(r *Run) bool {
	return r.Kind() == wire.Kind_KIND_PARTITION && c.runs[RunKey(r.ID, wire.Kind_KIND_REDUCE)] != nil
}

func (c *Core) check(e *Execution, want Phase) bool {
	if e.Phase != want {
		panic(fmt.Sprintf("execution: %s is %v where it should be %v", e.ID, e.Phase, want))
	}
	return e.Stop != StopKilled
}
