package blame

import (
	"fmt"
	"math"
	"time"

	"github.com/sheaf-run/agent/sheaf"
)

const (
	// least is the weight of failures without which no node stands out, and sure how many deviations above
	// what is usual they have to be.
	least = 2.0
	sure  = 3.0
	// timesUsual is how many times the usual share of failures one is that stands out, and leastShare
	// the smallest that does.
	timesUsual = 3.0
	leastShare = 0.05
	// prior is how many ends as they usually are each node is taken to have had beside its own when it is judged,
	// and priorShare when it is foreseen how it will do once it stands out.
	prior, priorShare = 4.0, 1.0
	// forgiven is the part of each of these bounds below which a node that stood out does so no more, so that one near
	// them does not go to and fro.
	forgiven = 0.5
	// Hopeless is the share of failures from which on a node gets nothing for a while after each.
	Hopeless = 0.5
	// Rest is that while.
	Rest = 10 * time.Second
)

// Record is how a node stands out.
type Record struct {
	Ended, Failed float64 // weights of executions that ended there, and of those of them that it failed
	Share         float64 // of failures to expect, above 0 and at most 1
	Usual         float64 // the same on most nodes
	Last          sheaf.FailureKind
	// Until is when the node may have more to show how it does; while others can, it gets nothing before. It may be past.
	Until time.Time
	Why   string // the same in words
}

// ordinary is how the better half of the nodes does.
type ordinary struct {
	share    float64 // of failures
	expected float64 // the same, and not small where little is known
}

// record is a node's, and whether it stands out.
func (a *account) record(most ordinary) (Record, bool) {
	usual, ease := most.expected, 1.0
	if a.avoided {
		ease = forgiven
	}
	expected := usual * a.ended
	share := func(prior float64) float64 { return (a.failed + prior*usual) / (a.ended + prior) }
	r := Record{Ended: a.ended, Failed: a.failed, Share: share(priorShare), Usual: most.share, Last: a.last}
	if a.failed <= ease*(expected+sure*math.Sqrt(expected)+least) || share(prior) < ease*max(leastShare, timesUsual*usual) {
		return Record{}, false
	}
	if a.failed <= expected {
		return Record{}, false // it is as the others are, whatever it was
	}
	if r.Share >= Hopeless {
		r.Until = a.lastAt.Add(Rest)
	}
	r.Why = r.text()
	return r, true
}

var lasts = map[sheaf.FailureKind]string{
	sheaf.FailLosses:  "it was lost, or came back without what it ran",
	sheaf.FailPrepare: "a task could not be made ready there",
	sheaf.FailStage:   "inputs could not be laid out there",
	sheaf.FailOutput:  "outputs could not be kept there",
	sheaf.FailDriver:  "the driver could not start a task, or crashed",
}

func (r *Record) text() string {
	last := lasts[r.Last]
	if last == "" {
		last = "what failed there (" + r.Last.String() + ") succeeded elsewhere"
	}
	return fmt.Sprintf("of about %.0f executions of all runs that ended there lately, %.0f failed by its doing, against %.0f %% on most nodes; the last time %s",
		max(r.Ended, 1), max(r.Failed, 1), 100*r.Usual, last)
}
