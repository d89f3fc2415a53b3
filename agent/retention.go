package agent

import (
	"fmt"
	"time"

	"github.com/sheaf-run/agent/server"
	"github.com/sheaf-run/agent/sheaf"
)

// HeartbeatConfig says when a node counts as lost.
type HeartbeatConfig struct {
	Lease   string `hcl:"lease,optional"`   // 9s: after which a node that is not heard of begins nothing new
	Grace   string `hcl:"grace,optional"`   // 3s: after the lease, until it is declared lost
	Outputs string `hcl:"outputs,optional"` // 5m: after that, until what lies only there and is needed is made again
}

// RetentionConfig says how long runs that are over are kept, with their outputs.
type RetentionConfig struct {
	Runs  int    `hcl:"runs,optional"`  // 1000: at most so many
	Age   string `hcl:"age,optional"`   // 168h: at most so long
	Least string `hcl:"least,optional"` // 1m: and at least so long, however many there are
}

// leastLease keeps a lease above what a loaded machine is late by.
const leastLease = 500 * time.Millisecond

func (h *HeartbeatConfig) heartbeat() (server.Heartbeat, error) {
	var out server.Heartbeat
	if h == nil {
		return out, nil
	}
	return out, durations("server.heartbeat", leastLease, map[string]duration{
		"lease": {h.Lease, &out.Lease}, "grace": {h.Grace, &out.Grace}, "outputs": {h.Outputs, &out.Outputs},
	})
}

func (r *RetentionConfig) retention() (server.Retention, error) {
	if r == nil {
		return server.Retention{}, nil
	}
	out := server.Retention{Runs: r.Runs}
	if r.Runs < 0 {
		return out, &sheaf.Error{Class: sheaf.Invalid, Field: "server.retention.runs", Msg: fmt.Sprintf("runs is %d", r.Runs), Limit: "at least 1", Hint: "write how many runs that are over to keep"}
	}
	return out, durations("server.retention", time.Millisecond, map[string]duration{"age": {r.Age, &out.Age}, "least": {r.Least, &out.Least}})
}

type duration struct {
	text string
	to   *time.Duration
}

// durations reads those that are given.
func durations(block string, least time.Duration, of map[string]duration) error {
	for name, d := range of {
		if d.text == "" {
			continue
		}
		v, err := time.ParseDuration(d.text)
		if err != nil || v < least {
			return &sheaf.Error{Class: sheaf.Invalid, Field: block + "." + name, Msg: fmt.Sprintf("%q is no duration that can be used", d.text), Limit: "at least " + least.String(), Hint: `write it as in "9s" or "5m"`}
		}
		*d.to = v
	}
	return nil
}
