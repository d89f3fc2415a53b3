package command

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/sheaf-run/agent/sheaf"
)

func TestOneDashIsTwo(t *testing.T) {
	for in, want := range map[string]string{
		"job run -o DIR f.hcl":      "job run --o DIR f.hcl",
		"-output=x --json":          "--output=x --json",
		"run -exec -- sh -c -x":     "run --exec -- sh -c -x",
		"job run -h":                "job run -h",
		"logs - -tail -5 -":         "logs - --tail -5 -",
		"run -image a -count 3 --q": "run --image a --count 3 --q",
	} {
		if got := strings.Join(doubleDashes(strings.Fields(in)), " "); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
}

// run runs a command line that needs no agent.
func run(t *testing.T, args ...string) (stdout string, code int, err error) {
	t.Helper()
	var out, errs bytes.Buffer
	e := &env{version: "test", in: strings.NewReader(""), out: &out, err: &errs, noColor: true}
	root := e.root()
	root.SetArgs(doubleDashes(args))
	root.SetOut(&out)
	root.SetErr(&errs)
	err = root.ExecuteContext(context.Background())
	if err != nil {
		code = exitCode(err)
	}
	return out.String(), code, err
}

func TestMistakesOfUsage(t *testing.T) {
	for _, c := range []struct {
		args string
		says string
	}{
		{"jobb", "did you mean `agent job`"},
		{"job rum", "did you mean `agent job run`"},
		{"job", "needs a command"},
		{"job run", "takes one file"},
		{"job run -nope", "unknown flag"},
		{"job run -image a -exec -- x", "exclude each other"},
		{"job run -exec", "needs a command behind --"},
		{"job run -exec -input a -- x", "write it as SOURCE:MOUNT"},
		{"job run -exec -output a -- x", "write it as NAME:PATH"},
		{"job status a b", "takes at most one run"},
		{"partition status x", "names no partition"},
		{"partition status x/y", "is no partition's number"},
		{"dev -clients 0", "give 1 to 100"},
		{"acl token create", "give -policy, once or more, or -management"},
		{"acl token create -management -policy p", "give -policy, once or more, or -management"},
		{"acl policy apply p nowhere.hcl", "read nowhere.hcl"},
		{"acl policy", "needs a command"},
		{"acl bootstrap a b", "takes at most"},
		{"start", "needs a place to keep its state"},
	} {
		_, code, err := run(t, strings.Fields(c.args)...)
		if code != ExitUsage || err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("agent %s: exit %d, %v; want exit 2 and %q", c.args, code, err, c.says)
		}
	}
}

func TestEveryCommandNamesTheExitCodes(t *testing.T) {
	seen := 0
	var look func(c *cobra.Command)
	look = func(c *cobra.Command) {
		for _, sub := range c.Commands() {
			look(sub)
		}
		if c.HasSubCommands() || !c.IsAvailableCommand() {
			return
		}
		seen++
		if !strings.Contains(c.Long, "Exit codes:") {
			t.Errorf("%s: its help does not name the exit codes", c.CommandPath())
		}
	}
	look((&env{}).root())
	if seen < 50 {
		t.Errorf("saw %d commands", seen)
	}
}

func TestExitCodes(t *testing.T) {
	for class, want := range map[sheaf.Class]int{
		sheaf.Invalid: 2, sheaf.NotFound: 2, sheaf.Conflict: 2, sheaf.Unavailable: 1, sheaf.Internal: 1, sheaf.Denied: 1, sheaf.TimedOut: 124, sheaf.Unsupported: 2,
	} {
		if got := exitCode(&sheaf.Error{Class: class}); got != want {
			t.Errorf("%s: exit %d, want %d", class, got, want)
		}
	}
	for status, want := range map[sheaf.RunStatus]int{sheaf.RunFailed: 3, sheaf.RunCancelled: 4} {
		if got := exitCode(exitOf(sheaf.RunStub{Status: status})); got != want {
			t.Errorf("%s: exit %d, want %d", status, got, want)
		}
	}
	if err := exitOf(sheaf.RunStub{Status: sheaf.RunSucceeded}); err != nil {
		t.Errorf("a run that succeeded ends with %v", err)
	}
}

func TestTextOfTasksCannotSteerTheTerminal(t *testing.T) {
	if got := printable("a\x1b[2Jb\rc\x07é\td"); got != "a\\x1b[2Jb\\x0dc\\x07é\td" {
		t.Errorf("got %q", got)
	}
}
