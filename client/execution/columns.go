package execution

import (
	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/sheaf"
)

const (
	// maxResults and maxText bound one message of results: some 64 KiB of
	// columns, and as much of text, which is what a command in the servers' log may hold.
	maxResults = 1024
	maxText    = 48 << 10
)

// Columns are the messages that tell of results, one or more for each run, generation and kind, as of a
// node's session.
func Columns(list []*Result, node sheaf.NodeID, session uint64) []*wire.Results {
	type group struct {
		run        *Run
		generation uint32
		kind       wire.Kind
	}
	var all []*wire.Results
	open := map[group]*columns{}
	for _, r := range list {
		g := group{r.Run, r.Generation, r.Kind}
		c := open[g]
		if c == nil {
			c = &columns{Results: &wire.Results{Run: string(r.Run.Of()), Generation: r.Generation, Kind: r.Kind, Node: string(node), Session: session}}
			open[g] = c
			all = append(all, c.Results)
		}
		if c.add(r); len(c.Partition) >= maxResults || c.text >= maxText {
			delete(open, g)
		}
	}
	return all
}

// columns is a message that is being filled.
type columns struct {
	*wire.Results
	text int // bytes
}

func (c *columns) add(r *Result) {
	c.Partition = append(c.Partition, r.Partition)
	c.Attempt = append(c.Attempt, r.Attempt)
	c.Outcome = append(c.Outcome, byte(r.Outcome))
	c.Failure = append(c.Failure, byte(r.Failure))
	c.ExitCode = append(c.ExitCode, r.ExitCode)
	c.StartedMs = append(c.StartedMs, r.StartedMs)
	c.DurationMs = append(c.DurationMs, r.DurationMs)
	c.CpuMs = append(c.CpuMs, r.CPUMs)
	c.PeakMemoryKib = append(c.PeakMemoryKib, r.PeakKiB)
	c.Digest = append(c.Digest, r.Digest[:]...)
	if r.Text != nil {
		t := &wire.Text{Item: uint32(len(c.Partition) - 1), Message: r.Text.Message, Stderr: r.Text.Stderr}
		c.Text = append(c.Text, t)
		c.text += len(t.Message) + len(t.Stderr)
	}
}
