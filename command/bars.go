package command

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"

	"charm.land/lipgloss/v2"

	"github.com/sheaf-run/agent/sheaf"
)

// bars is how a run goes on a terminal: live lines that are drawn over each other.
type bars struct {
	e        *env
	progress *mpb.Progress
	bar      *mpb.Bar

	mu   sync.Mutex
	last sheaf.RunSummary
}

const (
	// liveLines are the most that are shown: bar, rates, what is waited for, and the slowest three.
	liveLines = 6
	// defaultWidth is taken where a terminal does not tell its own, in columns.
	defaultWidth = 80
	// narrowest and widest a bar is drawn, in columns.
	minBar, maxBar = 8, 40
	// slowAfter is how long a partition runs before it is named as slow.
	slowAfter = 2 * time.Second
)

func newBars(e *env) *bars {
	b := &bars{e: e, progress: mpb.New(mpb.WithOutput(lineStarts{e.err}), mpb.WithAutoRefresh())}
	rest := mpb.BarFillerFunc(func(w io.Writer, _ decor.Statistics) error {
		for _, line := range b.lines()[1:] {
			if _, err := fmt.Fprintln(w, line); err != nil {
				return err
			}
		}
		return nil
	})
	first := mpb.BarFillerFunc(func(w io.Writer, _ decor.Statistics) error {
		_, err := io.WriteString(w, b.lines()[0])
		return err
	})
	b.bar = b.progress.MustAdd(1, first, mpb.BarFillerTrim(), mpb.BarExtender(rest, false), mpb.BarRemoveOnComplete())
	return b
}

// lineStarts begins every frame in the first column, where an echoed ^C
// would have moved the cursor away from it.
type lineStarts struct{ to io.Writer }

func (w lineStarts) Write(p []byte) (int, error) {
	n, err := w.to.Write(append([]byte{'\r'}, p...))
	return max(n-1, 0), err
}

func (b *bars) show(s sheaf.RunSummary) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.last = s
}

func (b *bars) close() {
	b.bar.Abort(true)
	b.progress.Wait()
}

func (b *bars) lines() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.e.live(b.last, width(b.e.err), time.Now())
}

// width is that of the terminal, in columns.
func width(w io.Writer) int {
	if f, ok := w.(*os.File); ok {
		if columns, _, err := term.GetSize(int(f.Fd())); err == nil && columns > 0 {
			return columns
		}
	}
	return defaultWidth
}

// live is how a run goes in one to liveLines lines, none empty but perhaps the
// first, none as wide as the terminal.
func (e *env) live(s sheaf.RunSummary, width int, now time.Time) []string {
	lines := []string{e.bar(s, width-1)}
	add := func(text string) {
		if text != "" && len(lines) < liveLines {
			lines = append(lines, cut(text, width-1))
		}
	}
	if s.ID == "" {
		return lines
	}
	add(ratesText(s))
	if len(s.Waiting) > 0 {
		add("  waiting: " + printable(s.Waiting[0]))
	}
	for _, p := range s.Slowest {
		if p.Started != nil && now.Sub(*p.Started) >= slowAfter {
			add(fmt.Sprintf("  partition %d has run for %s", p.Index, now.Sub(*p.Started).Round(time.Second)))
		}
	}
	return lines
}

// cut shortens text to n columns and marks the cut.
func cut(text string, n int) string {
	if utf8.RuneCountInString(text) <= n {
		return text
	}
	return string([]rune(text)[:max(n-1, 0)]) + "…"
}

// bar draws the shares of done, failed, reused and running partitions between the run's ID and the count.
func (e *env) bar(s sheaf.RunSummary, width int) string {
	p := s.Partitions
	if p.Total == 0 {
		return cut(strings.TrimSpace(fmt.Sprintf("%s  %s", s.ID, s.Status)), width)
	}
	count := fmt.Sprintf("  %s of %s", grouped3(done(p)), grouped3(p.Total))
	if s.Status != sheaf.RunRunning {
		count += "  " + string(s.Status)
	}
	id := cut(string(s.ID), max(width-len(count)-minBar-2, 0)) + "  "
	columns := min(width-utf8.RuneCountInString(id)-len(count), maxBar)
	if columns < minBar {
		return cut(id+strings.TrimSpace(count), width)
	}
	var b strings.Builder
	b.WriteString(id)
	used, upTo := 0, 0
	for _, part := range []struct {
		n     int
		mark  string
		style lipgloss.Style
	}{
		{p.Succeeded, "█", green}, {p.Reused, "▓", dim}, {p.Failed + p.Cancelled, "▒", red}, {p.Running, "░", plain}, {p.Total, "·", dim},
	} {
		upTo = min(upTo+part.n, p.Total)
		if n := upTo*columns/p.Total - used; n > 0 {
			b.WriteString(e.colour(e.err, strings.Repeat(part.mark, n), part.style))
			used += n
		}
	}
	return b.String() + count
}
