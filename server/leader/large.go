package leader

import (
	"github.com/sheaf-run/agent/server/scheduler"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/sheaf"
)

// large are at most `most` partitions of r with far more bytes than the others that were never placed; nil is none.
func large(r *state.Run, most int) sheaf.Ranges {
	return scheduler.Largest(r.Manifest.Largest, most, func(p int) bool {
		row := r.Partitions.Row(p)
		return row.State == sheaf.PartitionPending && row.Fence == 0
	})
}
