package wasm

import (
	"time"

	"github.com/sheaf-run/agent/drivers/driverpb"
)

// noExitCode stands where there is none.
const noExitCode = -1

// refused tells of an execution that did not begin.
func (e *execution) refused(err error) *driverpb.Exited {
	return &driverpb.Exited{ExitCode: noExitCode, NotStarted: true, Error: err.Error()}
}

// killed tells of an execution that was stopped before it began.
func (e *execution) killed() *driverpb.Exited {
	return &driverpb.Exited{ExitCode: noExitCode, Signal: "SIGKILL"}
}

// exited tells what the worker told.
func (e *execution) exited(end exit) *driverpb.Exited {
	x := &driverpb.Exited{
		ExitCode: int32(end.code), NotStarted: end.notStarted, OutOfMemory: end.outOfMem, Error: end.message,
		CpuMs: int64(end.cpuNs) / int64(time.Millisecond), PeakMemoryBytes: int64(end.peak),
		StartedUnixMs: int64(end.startedMs), DurationMs: int64(end.wallNs) / int64(time.Millisecond),
	}
	if end.trapped {
		x.Signal = "trap"
	}
	return x
}

// died tells of an execution whose worker ended under it. The worker has been waited for.
func (e *execution) died(c *child, stopped bool) *driverpb.Exited {
	state := c.cmd.ProcessState
	x := &driverpb.Exited{
		ExitCode: noExitCode, Signal: "SIGKILL",
		CpuMs:         max(0, int64(state.UserTime()+state.SystemTime())-int64(c.cpuNs)) / int64(time.Millisecond),
		StartedUnixMs: e.began.UnixMilli(), DurationMs: time.Since(e.began).Milliseconds(),
		PeakMemoryBytes: int64(e.peak),
	}
	if stopped {
		return x
	}
	d := c.death()
	if d.signal != "" {
		x.Signal = d.signal
	}
	x.OutOfMemory, x.Error = d.outOfMem, d.message
	return x
}
