package api

import (
	"context"
	"net/url"
	"strconv"
	"time"

	"github.com/sheaf-run/agent/sheaf"
)

// Timeline is when a run's partitions ran where: of those that ended, their latest try, by the clocks of
// their nodes. Small runs have each try, larger ones numbers for equal stretches of time.
type Timeline struct {
	Start    *time.Time     `json:"start,omitempty"` // of the first try; absent while none has ended
	End      *time.Time     `json:"end,omitempty"`   // of the last
	BucketMs int64          `json:"bucket_ms"`       // length of a stretch; 0 where lanes have tries
	Lanes    []TimelineLane `json:"lanes"`           // by name of the node
	Others   int            `json:"others"`          // tries on nodes beyond the lanes that a reply may have
}

// TimelineLane is a node's.
type TimelineLane struct {
	Node   sheaf.NodeID  `json:"node"`
	Name   string        `json:"name"`
	Ended  int           `json:"ended"`           // tries in the lane
	Failed int           `json:"failed"`          // of those
	Now    int           `json:"now"`             // partitions that it holds and has not ended
	Tries  []TimelineTry `json:"tries,omitempty"` // by start
	Busy   []int         `json:"busy,omitempty"`  // how many tries ran within each stretch
}

// TimelineTry is a partition's try.
type TimelineTry struct {
	Partition  int   `json:"partition"`
	StartMs    int64 `json:"start_ms"` // after Timeline.Start
	DurationMs int64 `json:"duration_ms"`
	Failed     bool  `json:"failed,omitempty"`
}

// Timeline says when a run's partitions ran where. Runs of more partitions than exact, 0 leaves
// that to the agent, come in stretches.
func (c *Client) Timeline(ctx context.Context, run string, exact int, r Read) (Timeline, Meta, error) {
	q := url.Values{}
	for k, v := range r.Params {
		q[k] = v
	}
	if exact > 0 {
		q.Set("exact", strconv.Itoa(exact))
	}
	r.Params = q
	var out Timeline
	m, err := c.get(ctx, runPath(run, "timeline"), r, &out)
	return out, m, err
}
