package command

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/sheaf-run/agent/api"
	"github.com/sheaf-run/agent/sheaf"
)

const (
	// refreshTerminal is how often numbers that are in no log (running, rate) are
	// fetched for a person who looks.
	refreshTerminal = 500 * time.Millisecond
	// refreshElsewhere is how often a line is written where nobody looks.
	refreshElsewhere = 10 * time.Second
	// retryWatch is the pause after a read failed, as while servers elect a leader.
	retryWatch = 500 * time.Millisecond
	// betweenReads keeps a run that changes thousands of times a second from being asked for as
	// often; the first quickReads go without a pause, so that a short run's end is seen at once.
	betweenReads = 100 * time.Millisecond
	quickReads   = 8
	// patience is how long reads may go on failing before the wait is given up.
	patience = time.Minute
)

// view shows how a run goes.
type view interface {
	show(sheaf.RunSummary)
	close()
}

// follow shows a run until it is over, and gives its last summary. Reads that fail
// for want of a leader or a connection are tried again for a while.
func follow(ctx context.Context, c *api.Client, run string, v view, every time.Duration) (sheaf.RunSummary, error) {
	defer v.close()
	var index uint64
	var failing, asked time.Time
	for reads := 0; ; reads++ {
		if pause := betweenReads - time.Since(asked); reads >= quickReads && pause > 0 {
			select {
			case <-time.After(pause):
			case <-ctx.Done():
			}
		}
		asked = time.Now()
		s, m, err := c.Summary(ctx, run, api.Read{Index: index, Wait: every})
		switch {
		case ctx.Err() != nil:
			return s, ctx.Err()
		case err != nil && sheaf.ClassOf(err) == sheaf.Unavailable:
			if failing.IsZero() {
				failing = time.Now()
			}
			if time.Since(failing) > patience {
				return s, err
			}
			select {
			case <-time.After(retryWatch):
			case <-ctx.Done():
			}
			continue
		case err != nil:
			return s, err
		}
		failing, index = time.Time{}, m.Index
		v.show(s)
		if s.Status.Terminal() {
			return s, nil
		}
	}
}

// watch follows a run the way the terminal, or its absence, asks for.
func (e *env) watch(ctx context.Context, c *api.Client, run string) (sheaf.RunSummary, error) {
	switch {
	case e.quiet || e.json || e.template != "":
		return follow(ctx, c, run, silent{}, refreshElsewhere)
	case terminal(e.err):
		return follow(ctx, c, run, newBars(e), refreshTerminal)
	}
	return follow(ctx, c, run, &lineView{e: e}, refreshElsewhere)
}

type silent struct{}

func (silent) show(sheaf.RunSummary) {}
func (silent) close()                {}

// lineView writes a line for every change of state, and one every ten seconds.
type lineView struct {
	e    *env
	last sheaf.RunStatus
	said time.Time
}

func (l *lineView) show(s sheaf.RunSummary) {
	if s.Status == l.last && time.Since(l.said) < refreshElsewhere {
		return
	}
	l.last, l.said = s.Status, time.Now()
	fmt.Fprintf(l.e.err, "%s  %s  %s\n", l.said.Format(time.TimeOnly), s.ID, progressLine(s))
}

func (l *lineView) close() {}

// progressLine is how a run goes, in a line.
func progressLine(s sheaf.RunSummary) string {
	p := s.Partitions
	text := statusText(s.RunStub)
	if p.Total > 0 {
		text += fmt.Sprintf("  %s of %s done", grouped3(done(p)), grouped3(p.Total))
	}
	for _, part := range []struct {
		n    int
		what string
	}{{p.Running, "running"}, {p.Failed, "failed"}, {p.Reused, "reused"}, {p.Cancelled, "cancelled"}} {
		if part.n > 0 {
			text += fmt.Sprintf(", %s %s", grouped3(part.n), part.what)
		}
	}
	if !s.Status.Terminal() {
		if s.Rate > 0 {
			text += fmt.Sprintf("  %.1f/s", s.Rate)
		}
		if eta := etaText(s); eta != "" {
			text += "  " + eta
		}
		if len(s.Waiting) > 0 && p.Running == 0 {
			text += "  waiting: " + printable(s.Waiting[0])
		}
	}
	return text
}

// statusText is where a run stands, and whether it is held there.
func statusText(s sheaf.RunStub) string {
	if s.Held && !s.Status.Terminal() {
		return string(s.Status) + " (held)"
	}
	return string(s.Status)
}

func done(p sheaf.PartitionCounts) int { return p.Succeeded + p.Failed + p.Cancelled + p.Reused }

func etaText(s sheaf.RunSummary) string {
	if s.ETALow == nil || s.ETAHigh == nil {
		return ""
	}
	low, high := time.Duration(*s.ETALow).Round(time.Second), time.Duration(*s.ETAHigh).Round(time.Second)
	switch {
	case high == 0:
		return ""
	case low == high:
		return fmt.Sprintf("%s left", high)
	}
	return fmt.Sprintf("%s to %s left", low, high)
}

// ratesText is what runs and failed, how fast it goes and how long it may take yet.
func ratesText(s sheaf.RunSummary) string {
	var parts []string
	for _, part := range []struct {
		n    int
		what string
	}{{s.Partitions.Running, "running"}, {s.Partitions.Failed, "failed"}, {s.Partitions.Reused, "reused"}, {s.Partitions.Cancelled, "cancelled"}} {
		if part.n > 0 {
			parts = append(parts, grouped3(part.n)+" "+part.what)
		}
	}
	if s.Rate > 0 {
		parts = append(parts, fmt.Sprintf("%.1f partitions/s", s.Rate))
		if perSecond := s.Rate * float64(s.Bytes) / float64(max(s.Partitions.Total, 1)); perSecond >= 1 {
			parts = append(parts, humanize.IBytes(uint64(perSecond))+"/s")
		}
	}
	if eta := etaText(s); eta != "" {
		parts = append(parts, eta)
	}
	if len(parts) == 0 {
		return ""
	}
	return "  " + strings.Join(parts, " · ")
}

// timedOut tells an end of time from an interrupt.
func timedOut(ctx context.Context) bool {
	return errors.Is(context.Cause(ctx), context.DeadlineExceeded)
}
