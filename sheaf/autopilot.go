package sheaf

import (
	"fmt"
	"time"
)

// Autopilot is how servers become voters and stop being servers without anybody's doing.
type Autopilot struct {
	// CleanupDeadServers removes servers that are gone for good, never so many
	// that a quorum of the rest would not be there.
	CleanupDeadServers bool `json:"cleanup_dead_servers"`
	// DeadServerAfter is how long gossip must not know a server before it counts as gone for good;
	// one that another replaced is gone at once.
	DeadServerAfter Duration `json:"dead_server_after"`
	// LastContactThreshold is how long ago a healthy server heard of the leader, at most.
	LastContactThreshold Duration `json:"last_contact_threshold"`
	// MaxTrailingLogs is how many entries a healthy server is behind, at most.
	MaxTrailingLogs uint64 `json:"max_trailing_logs"`
	// MinQuorum is how many voters stay, whatever is dead; 0 leaves it at what a quorum needs.
	MinQuorum uint32 `json:"min_quorum"`
	// ServerStabilizationTime is how long a new server must be healthy before it votes.
	ServerStabilizationTime Duration `json:"server_stabilization_time"`
}

// DefaultAutopilot are the settings of a cluster that was told none.
func DefaultAutopilot() Autopilot {
	return Autopilot{
		CleanupDeadServers:      true,
		DeadServerAfter:         Duration(5 * time.Minute), // a machine that restarts is back by then
		LastContactThreshold:    Duration(time.Second),
		MaxTrailingLogs:         250,
		ServerStabilizationTime: Duration(10 * time.Second),
	}
}

// Bounds of Autopilot's fields.
const (
	maxAutopilotTime = 30 * 24 * time.Hour
	maxMinQuorum     = 99
)

// Check says which setting is out of its range.
func (a Autopilot) Check() error {
	for _, d := range []struct {
		field string
		value Duration
		least time.Duration
	}{
		{"dead_server_after", a.DeadServerAfter, 0},
		{"last_contact_threshold", a.LastContactThreshold, 100 * time.Millisecond},
		{"server_stabilization_time", a.ServerStabilizationTime, 0},
	} {
		if v := time.Duration(d.value); v < d.least || v > maxAutopilotTime {
			return &Error{Class: Invalid, Field: d.field, Msg: fmt.Sprintf("%s is %v", d.field, v), Limit: fmt.Sprintf("%v to %v", d.least, maxAutopilotTime)}
		}
	}
	if a.MaxTrailingLogs == 0 {
		return &Error{Class: Invalid, Field: "max_trailing_logs", Msg: "max_trailing_logs is 0", Limit: "from 1", Hint: "a server is always a few entries behind"}
	}
	if a.MinQuorum > maxMinQuorum {
		return &Error{Class: Invalid, Field: "min_quorum", Msg: fmt.Sprintf("min_quorum is %d", a.MinQuorum), Limit: fmt.Sprint("0 to ", maxMinQuorum)}
	}
	return nil
}
