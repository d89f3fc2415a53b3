package execution

import "github.com/sheaf-run/agent/sheaf"

// Effects is what the caller has to carry out, in the order of the fields.
// Each is answered by a call of the method named.
type Effects struct {
	Prepare []*Run       // ask the driver to make the run ready: Prepared
	Fetch   []Fetch      // get the shards of a window: Fetched, FetchFailed
	Stage   []*Execution // make its directories: Staged, StageFailed
	Start   []*Execution // hand it to its driver: Started, Exited
	Stop    []*Execution // tell its driver to end it; Execution.Stop says why
	Harvest []*Execution // digest its outputs if it succeeded, then remove what is not kept: Harvested, HarvestFailed
	Store   []*Execution // write its Result durably: Stored
	Send    []*Result    // durable: send when there is a session; Answered
	Keep    []*Result    // answered: its output stands, or there is none
	Drop    []*Result    // answered: its output is to be deleted
	Own     []*Execution // begin a split or merge: OwnEnded
	End     []*Execution // cancel a split or merge
	Forget  []*Run       // nothing is left of it; Run.Deleted says whether its data goes too

	Reports []*Execution // run for a while by now: tell the servers
	Save    []*Execution // outlived YoungAge: write to the checkpoint
	Watch   []*Execution // outlived YoungAge: measure what it has written
	Hung    []*Execution // its driver was told to end it and does not
}

// Fetch asks for the shards of partitions that follow each other.
type Fetch struct {
	Run          *Run
	First, Count uint32
}

// Empty reports whether there is nothing to carry out.
func (f *Effects) Empty() bool {
	return len(f.Prepare) == 0 && len(f.Fetch) == 0 && len(f.Stage) == 0 && len(f.Start) == 0 &&
		len(f.Stop) == 0 && len(f.Harvest) == 0 && len(f.Store) == 0 && len(f.Send) == 0 &&
		len(f.Keep) == 0 && len(f.Drop) == 0 && len(f.Own) == 0 && len(f.End) == 0 &&
		len(f.Forget) == 0 && len(f.Reports) == 0 && len(f.Save) == 0 && len(f.Watch) == 0 && len(f.Hung) == 0
}

// reset empties the batches and keeps their memory.
func (f *Effects) reset() {
	clear(f.Prepare)
	clear(f.Fetch)
	clear(f.Stage)
	clear(f.Start)
	clear(f.Stop)
	clear(f.Harvest)
	clear(f.Store)
	clear(f.Send)
	clear(f.Keep)
	clear(f.Drop)
	clear(f.Own)
	clear(f.End)
	clear(f.Forget)
	clear(f.Reports)
	clear(f.Save)
	clear(f.Watch)
	clear(f.Hung)
	f.Prepare, f.Fetch, f.Stage, f.Start = f.Prepare[:0], f.Fetch[:0], f.Stage[:0], f.Start[:0]
	f.Stop, f.Harvest, f.Store, f.Send = f.Stop[:0], f.Harvest[:0], f.Store[:0], f.Send[:0]
	f.Keep, f.Drop, f.Own, f.End = f.Keep[:0], f.Drop[:0], f.Own[:0], f.End[:0]
	f.Forget, f.Reports, f.Save, f.Watch = f.Forget[:0], f.Reports[:0], f.Save[:0], f.Watch[:0]
	f.Hung = f.Hung[:0]
}

// Shards are fetched shards, from partition First on; nil where there is none.
type Shards struct {
	First  uint32
	Shards []*sheaf.Shard
}
