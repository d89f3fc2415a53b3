package state

import "github.com/sheaf-run/agent/sheaf"

// Node is a client with what the log holds of it. A Node in a snapshot never changes.
type Node struct {
	sheaf.Node
	Number   uint32 `json:"number"` // stands for the ID in columns; from 1, never reused
	BootID   string `json:"boot"`
	Joined   bool   `json:"joined"` // the session is reconciled: placements may come
	Modified uint64 `json:"modified"`
	LostMs   int64  `json:"lost,omitempty"` // cluster time at which it was declared lost; 0 while ready
	// NewBoot says that what is assigned to it was delivered to an earlier
	// start of its agent, if to any.
	NewBoot bool `json:"newBoot,omitempty"`
}

// Placeable reports whether placements may name the node.
func (n *Node) Placeable() bool {
	return n.Status == sheaf.NodeReady && n.Eligible && n.Joined
}
