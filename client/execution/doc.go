// Package execution is the client's core: which executions it has, which may
// begin, and how each goes on. It owns no clock, disk, network or goroutine.
// Inputs go in with the present time (what servers assign, what drivers
// report, what the disk has kept), effects come out in batches ([Effects]),
// and the caller carries them out. It is not safe for concurrent use: one loop
// owns it.
//
// What is queued is kept as ranges, so that a million partitions assigned in
// one range cost as much as one. An object exists only for an execution that
// has begun, and capacity bounds those.
package execution
