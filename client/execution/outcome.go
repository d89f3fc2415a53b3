package execution

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sheaf-run/agent/drivers/driverpb"
	"github.com/sheaf-run/agent/sheaf"
)

// judge fills r from what the driver said at the end of e. Why the client stopped an
// execution comes before what the driver saw of it: a task that was killed at its
// timeout died of a signal, and that is not the cause.
func judge(e *Execution, x *driverpb.Exited, r *Result) {
	r.ExitCode = x.ExitCode
	r.DurationMs = uint32(min(max(x.DurationMs, 0), int64(^uint32(0))))
	r.CPUMs = uint32(min(max(x.CpuMs, 0), int64(^uint32(0))))
	r.PeakKiB = uint32(min(max(x.PeakMemoryBytes, 0)>>10, int64(^uint32(0))))
	r.StartedMs = x.StartedUnixMs
	if r.StartedMs == 0 && !e.Started.IsZero() {
		r.StartedMs = e.Started.UnixMilli()
	}
	kind, msg := cause(e, x)
	if kind == sheaf.FailNone {
		r.Outcome = sheaf.OutcomeSucceeded
		return
	}
	r.fail(sheaf.OutcomeFailed, kind, msg)
	r.Ignored = kind == sheaf.FailExit && slices.Contains(e.Run.Ignore, int(x.ExitCode))
}

func cause(e *Execution, x *driverpb.Exited) (sheaf.FailureKind, string) {
	l := e.Run.Limits
	switch {
	case e.Stop == StopTimeout:
		return sheaf.FailTimeout, fmt.Sprintf("killed: over its timeout of %v", e.Run.Timeout)
	case e.Stop == StopDisk:
		return sheaf.FailDisk, fmt.Sprintf("killed: over its disk limit of %v", l.Disk)
	case x.NotStarted:
		return sheaf.FailDriver, "could not be started: " + said(x.Error, "the driver gives no reason")
	case x.ExitCode == 0 && x.Signal == "" && x.Error == "":
		return sheaf.FailNone, ""
	case x.OutOfMemory:
		return sheaf.FailMemory, fmt.Sprintf("killed: over its memory limit of %v", l.Memory)
	case x.OutOfPids:
		return sheaf.FailPids, fmt.Sprintf("failed at its limit of %d processes (exit code %d)", l.Pids, x.ExitCode)
	case x.Signal != "":
		return sheaf.FailSignal, "ended by " + x.Signal + behind(x.Error)
	case x.ExitCode > 0:
		return sheaf.FailExit, fmt.Sprintf("exit code %d", x.ExitCode) + behind(x.Error)
	default:
		return sheaf.FailDriver, said(x.Error, "ended without an exit code")
	}
}

func said(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

func behind(s string) string {
	if s == "" {
		return ""
	}
	return ": " + s
}

// fail makes r a failure of the given kind.
func (r *Result) fail(o sheaf.Outcome, kind sheaf.FailureKind, msg string) {
	r.Outcome, r.Failure, r.Ignored = o, kind, false
	r.Digest = [32]byte{}
	if r.Text == nil {
		r.Text = &Text{}
	}
	r.Text.Message = Clip(msg, MaxMessage)
}

// Clip cuts s to most bytes, on a rune's boundary, and makes it valid UTF-8.
func Clip(s string, most int) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= most {
		return s
	}
	const mark = "…"
	cut := most - len(mark)
	for cut > 0 && s[cut]&0xC0 == 0x80 {
		cut--
	}
	return s[:cut] + mark
}

// LastLines is the end of a log: at most MaxStderr bytes, from the beginning of a
// line where one begins there.
func LastLines(log []byte) string {
	s := strings.ToValidUTF8(string(log[max(0, len(log)-MaxStderr-64):]), "\uFFFD")
	if len(s) <= MaxStderr && len(log) <= MaxStderr {
		return s
	}
	s = s[max(0, len(s)-MaxStderr):]
	for len(s) > 0 && s[0]&0xC0 == 0x80 {
		s = s[1:]
	}
	if i := strings.IndexByte(s, '\n'); i >= 0 && i+1 < len(s) {
		return s[i+1:]
	}
	return s
}

// elapsedMs is the time from a to b in milliseconds, 0 where a is not set.
func elapsedMs(a, b time.Time) uint32 {
	if a.IsZero() || b.Before(a) {
		return 0
	}
	return uint32(min(b.Sub(a).Milliseconds(), int64(^uint32(0))))
}
