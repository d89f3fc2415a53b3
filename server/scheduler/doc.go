// Package scheduler decides where executions go. It is a pure function: nodes, a run
// and its needs go in, placements and reasons come out; it has no clock, no
// memory and no concurrency. Nodes are filtered once for each requirement, scored, and
// given ranges of partitions by count: its cost is nodes plus ranges, never
// partitions times nodes. What it proposes is checked again by the state machine.
package scheduler
