package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/spf13/cobra"

	"github.com/sheaf-run/agent/api"
	"github.com/sheaf-run/agent/jobspec"
	"github.com/sheaf-run/agent/sheaf"
)

type runFlags struct {
	variables
	quick   quickJob
	detach  bool
	local   bool
	dir     string
	id      string
	timeout time.Duration
	rerun   bool
	hold    bool
}

func (e *env) jobRun() *cobra.Command {
	var f runFlags
	c := &cobra.Command{
		Use: "run FILE | run -image IMG|-wasm FILE|-exec [flags] -- CMD...", Short: "Run a job",
		Long: "Submits a jobspec (- reads stdin), shows how the run goes, and ends with its outcome. Ctrl-C detaches: the run goes on.\n" +
			"-local needs no cluster: it starts an agent for just this run. Without a file, flags and a command make the job.\n\n" + exitHelp,
		Example: "  agent job run job.hcl -o result\n" +
			"  agent job run -local -exec -count 3 -- sh -c 'echo Partition=$SHEAF_PARTITION_INDEX'\n" +
			"  agent job run -image docker.io/library/alpine:3 -input ./data:/in -glob '/*.csv' -- wc -l /in",
		RunE: func(c *cobra.Command, args []string) error {
			job, err := e.jobOf(c, args, &f)
			if err != nil {
				return err
			}
			if !f.local {
				e.inNamespace(job)
				e.follow(job)
			}
			if f.quick.print {
				_, err := e.out.Write(jobspec.Write(job))
				return err
			}
			if f.local {
				return e.withLocal(c.Context(), func(ctx context.Context, client *api.Client) error { return e.runLocal(ctx, client, job, f) })
			}
			client, err := e.client()
			if err != nil {
				return err
			}
			return e.run(c.Context(), client, job, f)
		},
	}
	f.bind(c)
	f.quick.bind(c)
	c.Flags().BoolVar(&f.detach, "detach", false, "submit, print the run's ID, and leave")
	c.Flags().BoolVar(&f.local, "local", false, "start an agent for just this run")
	c.Flags().StringVar(&f.dir, "o", "", "write the result to this `DIR`")
	c.Flags().StringVar(&f.id, "id", "", "the run's `ID`; the same again is the same run")
	c.Flags().DurationVar(&f.timeout, "timeout", 0, "wait at most so long")
	c.Flags().BoolVar(&f.hold, "hold", false, "submit it held: nothing is placed before agent job release; means -detach")
	c.Flags().BoolVar(&f.rerun, "rerun", false, "take over nothing from earlier runs")
	return c
}

// jobOf is the job of the file or of the flags.
func (e *env) jobOf(c *cobra.Command, args []string, f *runFlags) (*sheaf.Job, error) {
	f.detach = f.detach || f.hold
	if f.local && f.hold {
		return nil, usage("-local and -hold exclude each other: nobody could release it")
	}
	if f.local && f.detach {
		return nil, usage("-local and -detach exclude each other: a local run ends with its command")
	}
	dash := c.ArgsLenAtDash()
	if f.quick.given() {
		if len(args) > 0 && dash != 0 {
			return nil, usage("%q does not stand behind --: with -image, -wasm and -exec the job is made of flags, and its command stands behind --", args[0])
		}
		return f.quick.job(args, c.Flags().Lookup("count"))
	}
	if dash > 0 || len(args) != 1 {
		return nil, usage("`agent job run` takes one file, or -image, -wasm or -exec and a command\nusage: %s", c.UseLine())
	}
	return e.load(c.Context(), args[0], f.variables)
}

// submitAttempts bounds how often a submission is sent while no leader answers;
// the run's ID makes sending it again harmless.
const submitAttempts = 8

// submit sends the job until an agent has taken it.
func submit(ctx context.Context, c *api.Client, req api.SubmitRequest) (api.SubmitReply, error) {
	return backoff.Retry(ctx, func() (api.SubmitReply, error) {
		got, err := c.Submit(ctx, req)
		var ours *sheaf.Error
		if errors.As(err, &ours) && ours.Class == sheaf.Unavailable && ours.Hint == "try again" {
			return got, err
		}
		if err != nil {
			return got, backoff.Permanent(err)
		}
		return got, nil
	}, backoff.WithBackOff(backoff.NewExponentialBackOff()), backoff.WithMaxTries(submitAttempts))
}

func (f *runFlags) request(job *sheaf.Job) api.SubmitRequest {
	id := sheaf.RunID(f.id)
	if id == "" {
		id = api.NewRunID(job.Name)
	}
	return api.SubmitRequest{ID: id, Hold: f.hold, Rerun: f.rerun, Job: *job}
}

// run submits a job to a cluster and waits for its end.
func (e *env) run(ctx context.Context, c *api.Client, job *sheaf.Job, f runFlags) error {
	got, err := submit(ctx, c, f.request(job))
	if err != nil {
		return err
	}
	rememberLast(got.Run.ID)
	if f.detach {
		if ok, err := e.shaped(got.Run, string(got.Run.ID)); ok {
			return err
		}
		fmt.Fprintln(e.out, got.Run.ID)
		if f.hold {
			e.hint("it is held; let it go: agent job release %s", e.named(got.Run.ID))
			return nil
		}
		e.hint("follow it: agent job status -watch %s", e.named(got.Run.ID))
		return nil
	}
	if f.timeout > 0 {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeout(ctx, f.timeout)
		defer stop()
	}
	s, err := e.watch(ctx, c, string(got.Run.ID))
	if ctx.Err() != nil {
		fmt.Fprintf(e.err, "%s goes on.\n  come back:  agent job status -watch %s\n  stop it:    agent job stop %s\n", got.Run.ID, e.named(got.Run.ID), e.named(got.Run.ID))
		if timedOut(ctx) {
			return &outcome{code: ExitTimedOut, text: fmt.Sprintf("%s has not ended within %s", got.Run.ID, f.timeout)}
		}
		return &outcome{code: exitInterrupts}
	}
	if err != nil {
		return err
	}
	return e.finish(ctx, c, s, f.dir)
}

// runLocal runs a job on the agent that lives for it alone: when the command is
// interrupted, the run is cancelled.
func (e *env) runLocal(ctx context.Context, c *api.Client, job *sheaf.Job, f runFlags) error {
	e.ephemeral = true
	plan, err := c.Plan(ctx, *job)
	if err != nil {
		return err
	}
	if plan.Eligible == 0 {
		return unplaced(plan)
	}
	got, err := submit(ctx, c, f.request(job))
	if err != nil {
		return err
	}
	waiting := ctx
	if f.timeout > 0 {
		var stop context.CancelFunc
		waiting, stop = context.WithTimeout(ctx, f.timeout)
		defer stop()
	}
	s, err := e.watch(waiting, c, string(got.Run.ID))
	if waiting.Err() != nil {
		if _, stopErr := c.Stop(context.WithoutCancel(ctx), string(got.Run.ID)); stopErr != nil {
			return stopErr
		}
		if timedOut(waiting) {
			return &outcome{code: ExitTimedOut, text: fmt.Sprintf("the run has not ended within %s and was stopped", f.timeout)}
		}
		return &outcome{code: ExitCancelled, text: "interrupted: the run was stopped"}
	}
	if err != nil {
		return err
	}
	if f.dir == "" && !e.json && !e.quiet && e.template == "" {
		if err := e.printLogs(ctx, c, string(s.ID)); err != nil {
			return err
		}
	}
	return e.finish(ctx, c, s, f.dir)
}

func unplaced(p api.PlanReply) error {
	text := "the job cannot be placed"
	for _, r := range p.Obstacles {
		text += "\n  " + obstacle(r)
	}
	return &outcome{code: ExitUnplaced, text: text}
}

// obstacle is a reason with how many nodes it holds for.
func obstacle(r api.Reason) string {
	if r.Nodes == 0 {
		return printable(r.What)
	}
	return counted(r.Nodes, "node") + ": " + printable(r.What)
}

// finish writes the result if asked, says how the run ended, and gives the exit code.
func (e *env) finish(ctx context.Context, c *api.Client, s sheaf.RunSummary, dir string) error {
	var err error
	if dir != "" && s.Status != sheaf.RunCancelled {
		err = e.download(ctx, c, string(s.ID), dir, downloadOptions{partial: s.Status == sheaf.RunFailed && s.ResultSHA == ""})
	}
	if ok, printErr := e.shaped(s, string(s.ID)); ok {
		return errors.Join(err, printErr, exitOf(s.RunStub))
	}
	e.conclude(e.err, s)
	if dir == "" && s.Status == sheaf.RunSucceeded && !e.ephemeral {
		e.hint("what it printed: agent job logs %s · all of the result: agent job results %s -o DIR", e.named(s.ID), e.named(s.ID))
	}
	return errors.Join(err, exitOf(s.RunStub))
}

// conclude says in words how a run ended, with the root cause first.
func (e *env) conclude(w io.Writer, s sheaf.RunSummary) {
	style := green
	if s.Status != sheaf.RunSucceeded {
		style = red
	}
	took := ""
	if s.Ended != nil {
		took = " in " + roundDuration(s.Ended.Sub(s.Submitted)).String()
	}
	fmt.Fprintf(w, "%s %s%s: %s\n", s.ID, e.colour(w, string(s.Status), style), took, countsText(s.Partitions))
	if s.Error != "" {
		fmt.Fprintln(w, block(s.Error, "  "))
	}
	if s.Published != "" {
		fmt.Fprintln(w, "published:", printable(s.Published))
	}
	if s.PublishedCID != "" {
		fmt.Fprintln(w, "cid:", printable(s.PublishedCID))
	}
	e.failures(w, s)
	if len(s.Failures) > 0 && !e.ephemeral {
		e.hint("what they said:  agent job logs %s -failed\nwhy:             agent job explain %s/%d\nrun them again:  agent job retry %s -failed", e.named(s.ID), e.named(s.ID), s.Failures[0].Partitions[0].First, e.named(s.ID))
	}
}

// failures shows the groups of failures with the stderr of one of each.
func (e *env) failures(w io.Writer, s sheaf.RunSummary) {
	for _, g := range s.Failures {
		fmt.Fprintf(w, "  %s × partition %s: %s\n", grouped3(g.Count), shorten(g.Partitions.String(), 60), printable(g.Message))
		if g.Example != "" {
			fmt.Fprintln(w, block(g.Example, "    | "))
		}
	}
}

func shorten(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return s[:n] + "…"
}

func roundDuration(d time.Duration) time.Duration {
	if d < 10*time.Second {
		return d.Round(time.Millisecond)
	}
	return d.Round(time.Second)
}

func countsText(p sheaf.PartitionCounts) string {
	text := ""
	for _, part := range []struct {
		n    int
		what string
	}{{p.Pending, "pending"}, {p.Assigned, "assigned"}, {p.Running, "running"}, {p.Succeeded, "succeeded"}, {p.Reused, "reused"}, {p.Failed, "failed"}, {p.Cancelled, "cancelled"}} {
		if part.n > 0 {
			if text != "" {
				text += ", "
			}
			text += grouped3(part.n) + " " + part.what
		}
	}
	if text == "" {
		return "no partitions"
	}
	return text
}

// taskText writes what a task printed: byte for byte, but on a terminal so that it cannot steer it.
func (e *env) taskText(w io.Writer, text []byte) error {
	if !terminal(w) {
		_, err := w.Write(text)
		return err
	}
	for line := range strings.Lines(string(text)) {
		end := ""
		if strings.HasSuffix(line, "\n") {
			line, end = line[:len(line)-1], "\n"
		}
		if _, err := io.WriteString(w, printable(line)+end); err != nil {
			return err
		}
	}
	return nil
}

// printLogs prints what the partitions printed, in partition order.
func (e *env) printLogs(ctx context.Context, c *api.Client, run string) error {
	return c.Records(ctx, run, nil, true, func(r api.Record) error {
		if err := e.taskText(e.out, r.Stdout); err != nil {
			return err
		}
		err := e.taskText(e.err, r.Stderr)
		if errors.Is(err, os.ErrClosed) {
			return nil
		}
		return err
	})
}
