package cluster

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"
)

// report tells where the logs are, what state each server holds, and how the logs end.
func (c *cluster) report() {
	c.t.Logf("the agents' logs are in %s", c.logs)
	for _, s := range c.servers {
		st, err := ask(s, s.api.State)
		c.t.Logf("%s at %s: running %v, index %d, state %s %v", s.name, s.address, s.running(), st.Index, st.Digest, err)
	}
	for _, a := range c.all() {
		c.t.Logf("%s ends its log with\n%s", a.name, tail(a.log, 12))
	}
}

// tail is the end of a log, without what only debugging wants.
func tail(path string, lines int) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	all := slices.DeleteFunc(strings.Split(strings.TrimSpace(string(b)), "\n"), func(line string) bool { return strings.Contains(line, "level=DEBUG") })
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// figure is a time that was measured beside the time that is promised.
type figure struct {
	what     string
	took     []time.Duration
	of       string // "median" or "worst"
	promised time.Duration
}

var (
	figuresMu sync.Mutex
	figures   []figure
)

// measured notes a figure. In the long form it fails the test when the promise is broken.
func measured(t *testing.T, f figure) {
	t.Helper()
	slices.Sort(f.took)
	figuresMu.Lock()
	figures = append(figures, f)
	figuresMu.Unlock()
	t.Log(f)
	if *long && f.promised > 0 && f.value() > f.promised {
		t.Errorf("%s: promised are %s", f, f.promised)
	}
}

func (f figure) value() time.Duration {
	if len(f.took) == 0 {
		return 0
	}
	if f.of == "median" {
		return f.took[len(f.took)/2]
	}
	return f.took[len(f.took)-1]
}

func (f figure) String() string {
	var all []string
	for _, d := range f.took {
		all = append(all, d.Round(time.Millisecond).String())
	}
	return fmt.Sprintf("%s: %s %s of %d (%s)", f.what, f.of, f.value().Round(time.Millisecond), len(f.took), strings.Join(all, ", "))
}

func writeFigures(out io.Writer) {
	figuresMu.Lock()
	defer figuresMu.Unlock()
	if len(figures) == 0 {
		return
	}
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "measured\t\t\tpromised")
	for _, f := range figures {
		promised := ""
		if f.promised > 0 {
			promised = f.promised.String()
		}
		fmt.Fprintf(w, "%s\t%s of %d\t%s\t%s\n", f.what, f.of, len(f.took), f.value().Round(time.Millisecond), promised)
	}
	w.Flush()
}
