// Package straggler looks after the tail of a run: which partitions take so much longer than
// others of the run that a second attempt elsewhere is worth it, what waits at a busy node and
// had better wait at none, and when the run will be over. It is pure: durations, what runs and the
// nodes go in as values; it has no clock, no memory and no concurrency. What it
// proposes is checked again by the state machine.
package straggler
