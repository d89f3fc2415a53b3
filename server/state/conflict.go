package state

import (
	"github.com/sheaf-run/agent/server/state/table"
	"github.com/sheaf-run/agent/sheaf"
)

// Conflict is two committed outputs that cannot be merged. It is of their very bytes, so that it holds
// for as long as both stand committed, and again when they are made again and are the same.
type Conflict struct {
	Output    string          `json:"output"`
	Path      []byte          `json:"path"`
	Directory bool            `json:"directory,omitempty"`
	Between   [2]int          `json:"between"` // partitions, ascending
	Manifests [2]table.Digest `json:"manifests"`
}

// Between reports whether these outputs are what the two partitions of the run have committed.
func (o *Origins) Between(r *Run, c *Conflict) bool {
	for i, p := range c.Between {
		if r.Partitions == nil || p >= r.Partitions.Len() {
			return false
		}
		if m, ok := o.Of(r, p); !ok || m.Row.Output != c.Manifests[i] {
			return false
		}
	}
	return true
}

// Conflict is what keeps the run's outputs from being merged, as they stand committed; nil where nothing is known
// of that. There is one at most: the first that was found.
func (s *Snapshot) Conflict(r *Run) *sheaf.OutputConflict {
	c := r.Conflict
	if c == nil || !s.Origins().Between(r, c) {
		return nil
	}
	return c.Of(r.Job)
}

// Of is the conflict as the API shows it.
func (c *Conflict) Of(job *sheaf.Job) *sheaf.OutputConflict {
	x := &sheaf.OutputConflict{Output: c.Output, Path: string(c.Path), Partitions: c.Between, Directory: c.Directory}
	x.Message = x.Text() + ", and they cannot be merged; " + x.Hint(job.MergeOf(c.Output))
	return x
}
