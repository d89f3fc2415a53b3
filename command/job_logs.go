package command

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/sheaf-run/agent/api"
	"github.com/sheaf-run/agent/sheaf"
)

const (
	// maxLogStreams is how many partitions' logs are followed at once.
	maxLogStreams = 32
	// maxLogLine is the longest line that is shown in one piece, in bytes.
	maxLogLine = 64 << 10
	// lookAgain is how often a run that is followed is asked for partitions that began since.
	lookAgain = time.Second
)

// logReader prints logs of a run's partitions.
type logReader struct {
	*env
	client  *api.Client
	run     string
	of      sheaf.Ranges // nil is all
	failed  bool         // only partitions that failed
	options api.LogOptions

	mu      sync.Mutex     // guards what is below, and holds lines together
	begun   map[int]uint32 // attempts whose logs are printed or being printed
	printed bool
}

// logLine is a line of a log with -json.
type logLine struct {
	Partition int          `json:"partition"`
	Attempt   uint32       `json:"attempt"`
	Node      sheaf.NodeID `json:"node"`
	Line      string       `json:"line"`
}

func (e *env) jobLogs() *cobra.Command {
	var o api.LogOptions
	var failed, reduce bool
	var partitions string
	c := &cobra.Command{
		Use: "logs JOB", Short: "What a run's tasks print",
		Long: "Prints stdout (or stderr) of a run's partitions, each line behind the partition and its node.\n" +
			"With -f it goes on until the run is over; -json prints an object a line.\n\n" + exitHelp,
		Args: args(1, "one run"),
		RunE: e.withRun(func(ctx context.Context, client *api.Client, run string) error {
			o.Stderr = o.Stderr || failed
			r := &logReader{env: e, client: client, run: run, failed: failed, options: o, begun: map[int]uint32{}}
			if partitions != "" {
				var err error
				if r.of, err = sheaf.ParseRanges(partitions); err != nil {
					return err
				}
			}
			if reduce {
				return r.reduce(ctx)
			}
			return r.print(ctx)
		}),
	}
	c.Flags().BoolVar(&o.Follow, "f", false, "go on until the run is over")
	c.Flags().BoolVar(&failed, "failed", false, "stderr of the failed partitions")
	c.Flags().StringVar(&partitions, "partition", "", "only these `NUMBERS`, as in 3,7-9")
	c.Flags().BoolVar(&reduce, "reduce", false, "what the job's reduce prints")
	c.Flags().IntVar(&o.Tail, "tail", 0, "only the last `N` lines of each")
	c.Flags().BoolVar(&o.Stderr, "stderr", false, "stderr instead of stdout")
	return c
}

// reduce prints the log of the run's reduce.
func (r *logReader) reduce(ctx context.Context) error {
	s, _, err := r.client.Summary(ctx, r.run, api.Read{})
	if err != nil {
		return err
	}
	if s.Reduce == nil || s.Reduce.Node == "" {
		return &sheaf.Error{Class: sheaf.NotFound, Field: "job", Msg: fmt.Sprintf("run %s has no reduce that has begun: it is %s", s.ID, s.Status)}
	}
	r.run = string(s.ID)
	return r.one(ctx, *s.Reduce)
}

// print prints the logs of the partitions that have any: in order, or with -f
// at once, and those of partitions that begin meanwhile.
func (r *logReader) print(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(1)
	if r.options.Follow {
		g.SetLimit(maxLogStreams)
	}
	for {
		s, _, err := r.client.Summary(ctx, r.run, api.Read{})
		if err == nil {
			r.run = string(s.ID) // a name may come to mean another run
			err = r.begin(ctx, g)
		}
		if err != nil {
			return errors.Join(err, g.Wait())
		}
		if !r.options.Follow || s.Status.Terminal() {
			break
		}
		select {
		case <-time.After(lookAgain):
		case <-ctx.Done():
			return errors.Join(ctx.Err(), g.Wait())
		}
	}
	if err := g.Wait(); err != nil || r.printed {
		return err
	}
	r.hint("%s", silence(r.options, r.run))
	return nil
}

// begin has the logs printed of every attempt that was not seen before.
func (r *logReader) begin(ctx context.Context, g *errgroup.Group) error {
	params := url.Values{"per_page": {"1000"}}
	if r.failed {
		params.Set("state", sheaf.PartitionFailed.String())
	}
	if r.of != nil {
		params.Set("partitions", r.of.String())
	}
	for {
		page, m, err := r.client.Partitions(ctx, r.run, api.Read{Params: params})
		if err != nil {
			return err
		}
		for _, p := range page {
			if p.Node != "" && r.take(p) {
				g.Go(func() error { return r.one(ctx, p) })
			}
		}
		if m.NextToken == "" {
			return nil
		}
		params.Set("next_token", m.NextToken)
	}
}

// take reports whether an attempt's log is still to be printed, and notes that it is now.
func (r *logReader) take(p sheaf.Partition) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.begun[p.Index] == p.Attempt {
		return false
	}
	r.begun[p.Index] = p.Attempt
	return true
}

// giveBack forgets an attempt that its node has not begun yet.
func (r *logReader) giveBack(p sheaf.Partition) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.begun[p.Index] == p.Attempt {
		delete(r.begun, p.Index)
	}
}

// one prints one partition's log, a line at a time.
func (r *logReader) one(ctx context.Context, p sheaf.Partition) error {
	o := r.options
	o.Attempt = p.Attempt
	body, err := r.client.Log(ctx, r.run, p.Index, o)
	if sheaf.ClassOf(err) == sheaf.NotFound {
		r.giveBack(p)
		return nil
	}
	if err != nil {
		return err
	}
	defer body.Close()
	lines := bufio.NewReaderSize(body, maxLogLine)
	for {
		line, err := lines.ReadSlice('\n')
		if len(line) > 0 {
			if line[len(line)-1] == '\n' {
				line = line[:len(line)-1]
			}
			if err := r.line(p, string(line)); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil && !errors.Is(err, bufio.ErrBufferFull):
			return fmt.Errorf("read log of partition %d: %w", p.Index, err)
		}
	}
}

func (r *logReader) line(p sheaf.Partition, line string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.printed = true
	if r.json {
		return json.NewEncoder(r.out).Encode(logLine{p.Index, p.Attempt, p.Node, line})
	}
	_, err := fmt.Fprintf(r.out, "%d@%.8s| %s\n", p.Index, p.Node, printable(line))
	return err
}

// silence is said where no task has printed anything.
func silence(o api.LogOptions, run string) string {
	if o.Stderr {
		return "nothing on stderr; stdout: agent job logs " + run
	}
	return "nothing on stdout; stderr: agent job logs -stderr " + run
}
