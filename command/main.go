// Package command is the command line: a file per command. It reaches the
// cluster through the HTTP API alone; start.go starts agents.
//
// Results go to stdout, progress and hints to stderr. How a command ended is
// its exit code, in exit.go.
package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/sheaf-run/agent/api"
)

// env is what commands share: the streams, the output format, and the agent to talk to.
type env struct {
	version string
	in      io.Reader
	out     io.Writer // results
	err     io.Writer // progress and hints

	json     bool
	quiet    bool
	template string
	noColor  bool
	connect  api.Config // what flags give goes before the environment

	ephemeral bool // the agent ends with this command: nobody can come back to its runs
}

// Main runs the command that args name and gives the exit code.
func Main(version string, args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	e := &env{version: version, in: os.Stdin, out: os.Stdout, err: os.Stderr}
	root := e.root()
	root.SetArgs(doubleDashes(args))
	root.SetOut(e.out)
	root.SetErr(e.err)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return ExitDone
	}
	code := exitCode(err)
	var silent *outcome
	if !errors.As(err, &silent) || silent.Error() != "" {
		fmt.Fprintln(e.err, e.describe(err))
	}
	return code
}

// doubleDashes makes --flag of -flag, since both mean the same here; pflag alone
// would read -output=x as -o with the value "utput=x". What stands behind "--" is left alone, and -h, which it knows.
func doubleDashes(args []string) []string {
	out := make([]string, len(args))
	for i, a := range args {
		if a == "--" {
			copy(out[i:], args[i:])
			return out
		}
		if len(a) > 1 && a != "-h" && a[0] == '-' && (a[1] >= 'a' && a[1] <= 'z' || a[1] >= 'A' && a[1] <= 'Z') {
			a = "-" + a
		}
		out[i] = a
	}
	return out
}

func (e *env) root() *cobra.Command {
	root := &cobra.Command{
		Use: "agent", Short: "Run data-parallel batch work on many machines",
		Long:          "Sheaf splits files into partitions, runs a program on each, and merges the outputs.\n\n" + exitHelp,
		SilenceErrors: true, SilenceUsage: true, Args: noArgs, RunE: group,
		SuggestionsMinimumDistance: 2,
	}
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetHelpCommand(e.helpCommand())
	root.SetUsageTemplate(oneDashUsage(root.UsageTemplate()))
	flags := root.PersistentFlags()
	flags.BoolVar(&e.json, "json", false, "print JSON")
	flags.BoolVar(&e.quiet, "q", false, "print IDs only")
	flags.StringVar(&e.template, "t", "", "print through a Go `TEMPLATE` over the JSON form")
	flags.BoolVar(&e.noColor, "no-color", os.Getenv("NO_COLOR") != "", "no colours")
	e.connection(flags)
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usage("%s\nsee `%s -help`", flagError(err), c.CommandPath())
	})
	root.AddCommand(
		e.devCommand(), e.startCommand(), e.fmtCommand(), e.versionCommand(), e.completionCommand(), e.eventsCommand(), e.monitorCommand(),
		grouped("job", "Jobs and their runs", e.jobInit(), e.jobValidate(), e.jobPlan(), e.jobRun(), e.jobStatus(), e.jobList(), e.jobInspect(),
			e.jobStop(), e.jobHold(), e.jobRelease(), e.jobUpdate(), e.jobDelete(), e.jobRetry(), e.jobWait(), e.jobResults(), e.jobLogs(), e.jobExplain(), e.jobHistory(), e.jobTimeline(), e.jobConvert()),
		grouped("partition", "Partitions of a run", e.partitionList(), e.partitionStatus()),
		grouped("eval", "What the leader is about to place", e.evalList()),
		grouped("input", "Inputs, without a job", e.inputPreview(), e.inputPack()),
		grouped("node", "The clients of the cluster", e.nodeList(), e.nodeStatus(), e.nodeDrain(), e.nodeEligibility(), e.nodePurge()),
		grouped("server", "The servers of the cluster", e.serverMembers(), e.serverLeave()),
		grouped("secret", "Secrets that tasks use", e.secretPut(), e.secretList(), e.secretDelete(), e.secretKeygen(), e.secretReseal()),
		grouped("namespace", "Namespaces, which keep jobs apart", e.namespaceList(), e.namespaceApply(), e.namespaceDelete()),
		e.aclCommand(),
		grouped("tls", "Certificates", e.tlsInit(), e.tlsCert(), e.tlsShow()),
		grouped("gossip", "Gossip's encryption", e.gossipKeygen()),
		grouped("operator", "The cluster's own affairs", e.operatorRaft(), e.operatorAutopilot(), e.operatorSnapshot(), e.operatorKeyring(), e.operatorDebug()),
	)
	return root
}

func grouped(name, short string, commands ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: name, Short: short, Args: noArgs, RunE: group, SuggestionsMinimumDistance: 2}
	c.AddCommand(commands...)
	return c
}

// noArgs says which command was probably meant.
func noArgs(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if near := c.SuggestionsFor(args[0]); len(near) > 0 {
		return usage("unknown command %q for %q: did you mean `%s %s`?", args[0], c.CommandPath(), c.CommandPath(), near[0])
	}
	return usage("unknown command %q for %q: see `%s -help`", args[0], c.CommandPath(), c.CommandPath())
}

// group is what a command without a verb does: say which there are, and fail.
func group(c *cobra.Command, _ []string) error {
	var names []string
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() {
			names = append(names, sub.Name())
		}
	}
	return usage("`%s` needs a command: %s\nsee `%s -help`", c.CommandPath(), strings.Join(names, ", "), c.CommandPath())
}

// args takes exactly the arguments that the command's Use line names.
func args(n int, what string) cobra.PositionalArgs {
	return func(c *cobra.Command, given []string) error {
		if len(given) != n {
			return usage("`%s` takes %s, %d given\nusage: %s", c.CommandPath(), what, len(given), c.UseLine())
		}
		return nil
	}
}

// atMostOne takes one argument or none.
func atMostOne(what string) cobra.PositionalArgs {
	return func(c *cobra.Command, given []string) error {
		if len(given) > 1 {
			return usage("`%s` takes at most %s, %d given\nusage: %s", c.CommandPath(), what, len(given), c.UseLine())
		}
		return nil
	}
}
