package command

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/sheaf-run/agent/sheaf"
)

// The exit codes.
const (
	ExitDone       = 0
	ExitAgent      = 1   // the agent or the API failed
	ExitUsage      = 2   // wrong usage or input
	ExitRunFailed  = 3   // the run failed
	ExitCancelled  = 4   // it was cancelled
	ExitUnplaced   = 5   // it cannot be placed
	ExitTimedOut   = 124 // time ran out
	exitInterrupts = 130 // Ctrl-C before there was an outcome
)

const exitHelp = `Exit codes: 0 done · 1 the agent or API failed · 2 wrong usage or input ·
3 the run failed · 4 it was cancelled · 5 it cannot be placed · 124 timed out · 130 interrupted`

// outcome is an error that carries its exit code; one without text or cause has been said already.
type outcome struct {
	code int
	text string
	err  error
}

func (o *outcome) Error() string {
	if o.err != nil {
		return o.err.Error()
	}
	return o.text
}

func (o *outcome) Unwrap() error { return o.err }

func usage(format string, args ...any) error {
	return &outcome{code: ExitUsage, text: fmt.Sprintf(format, args...)}
}

// exitCode is the one place where an error becomes an exit code.
func exitCode(err error) int {
	var o *outcome
	switch {
	case errors.As(err, &o):
		return o.code
	case errors.Is(err, context.Canceled):
		return exitInterrupts
	case errors.Is(err, context.DeadlineExceeded):
		return ExitTimedOut
	}
	switch sheaf.ClassOf(err) {
	case sheaf.Invalid, sheaf.NotFound, sheaf.Conflict, sheaf.TooLarge, sheaf.Unsupported:
		return ExitUsage
	case sheaf.TimedOut:
		return ExitTimedOut
	}
	return ExitAgent
}

// exitOf is how a command that waited for a run ends.
func exitOf(run sheaf.RunStub) error {
	switch run.Status {
	case sheaf.RunFailed:
		return &outcome{code: ExitRunFailed}
	case sheaf.RunCancelled:
		return &outcome{code: ExitCancelled}
	}
	return nil
}

// describe is what a person reads of an error: what failed and what to do.
func (e *env) describe(err error) string {
	text := "error: " + err.Error()
	var ours *sheaf.Error
	if errors.As(err, &ours) && ours.Hint != "" {
		text += "\n  " + ours.Hint
	}
	return e.colour(e.err, text, red)
}

var numberError = regexp.MustCompile(`invalid argument "(.*)" for "-?-?.*--(\S+)" flag: .*`)

// flagError says in our words what pflag found.
func flagError(err error) string {
	text := err.Error()
	if m := numberError.FindStringSubmatch(text); m != nil {
		return fmt.Sprintf("-%s does not take %q", m[2], m[1])
	}
	return strings.ReplaceAll(text, ": --", ": -")
}
