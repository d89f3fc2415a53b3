package cluster

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sheaf-run/agent/sheaf"
)

// ledger is a run of the ledger job, and what must come of it: record i carries a nonce, its entry
// the nonce's hash.
type ledger struct {
	c       *cluster
	t       *testing.T
	run     string
	nonces  []string
	witness string // file in which tasks say when they begin and end
	gate    string // file that the later partitions wait for
	free    int    // the first partition that waits
}

// newLedger submits a run of so many records, whose tasks take a time each. The later half does not end
// before release: however late a busy machine looks, the run is under way until what was to happen to it has.
func newLedger(c *cluster, t *testing.T, name string, records int, hold time.Duration) *ledger {
	t.Helper()
	l := &ledger{c: c, t: t, run: name, witness: filepath.Join(c.dir, name+".witness"), gate: filepath.Join(c.dir, name+".gate"), free: records / 2}
	in := filepath.Join(c.shared, name)
	if err := os.Mkdir(in, 0o755); err != nil {
		t.Fatal(err)
	}
	for i := range records {
		nonce := rand.Text()
		l.nonces = append(l.nonces, nonce)
		write(t, filepath.Join(in, fmt.Sprintf("%06d", i)), fmt.Sprintf("%06d %s\n", i, nonce))
	}
	spec := filepath.Join(c.dir, name+".hcl")
	write(t, spec, fmt.Sprintf(`
job "ledger" {
  backups = false
  input "records" {
    source = "file://%s"
    mount  = "/records"
  }
  split {
    glob = "/*"
  }
  task "hash" {
    driver = "exec"
    config {
      command = %q
    }
    env = {
      WITNESS = %q
      HOLD    = %q
      GATE    = %q
      FREE    = "%d"
      NODE    = "${node.name}"
    }
    resources {
      cpu    = %d
      memory = 64
    }
  }
  output "entries" {
    path = "/entries"
  }
  output "book" {
    path  = "/book"
    merge = "concat"
  }
}`, in, hasher, l.witness, hold, l.gate, l.free, taskCPU))
	c.submit(spec, name)
	return l
}

// release lets the later partitions end.
func (l *ledger) release() {
	l.t.Helper()
	write(l.t, l.gate, "")
}

// submit asks for a run, of one agent after another until one takes it. The run has an ID, so that asking
// again is the same run.
func (c *cluster) submit(spec, run string) {
	c.t.Helper()
	anyone(c, "to take run "+run, func(_ context.Context, a *agent) (string, error) {
		return a.try("job", "run", "-detach", "-id", run, spec)
	})
}

// results has the command line fetch the result of a run, from one agent after another: what is there
// already is not fetched again.
func (c *cluster) results(run, out string) {
	c.t.Helper()
	anyone(c, "the result of "+run, func(_ context.Context, a *agent) (string, error) {
		return a.try("job", "results", "-o", out, run)
	})
}

// until waits for the run to be as wanted, and is patient for as long as partitions are committed.
func (l *ledger) until(what string, good func(sheaf.RunSummary) bool) (s sheaf.RunSummary) {
	l.t.Helper()
	if !moving(func() (string, bool) {
		s = l.c.summary(l.run)
		reached := good(s)
		if !reached && s.Status.Terminal() {
			l.t.Fatalf("waiting until %s, the run ended: %+v", what, s)
		}
		return fmt.Sprint(s.Status, s.Partitions.Succeeded), reached
	}) {
		l.t.Fatalf("waited in vain until %s: for %s nothing was committed of %+v", what, patience, s)
	}
	return s
}

// midway waits until a share of the run is committed; work is under way, for there is some that is not released.
func (l *ledger) midway() {
	l.t.Helper()
	l.until(l.run+" is under way", func(s sheaf.RunSummary) bool { return s.Partitions.Succeeded*10 >= len(l.nonces) })
}

// testimony is a line of the witness.
type testimony struct {
	ended     bool
	partition int
	attempt   uint32
	node      string
	at        time.Time
}

// heard is what tasks have said so far, in the order in which they did.
func (l *ledger) heard() (all []testimony) {
	l.t.Helper()
	f, err := os.Open(l.witness)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		l.t.Fatal(err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var t testimony
		var what string
		var at int64
		if _, err := fmt.Sscan(lines.Text(), &what, &t.partition, &t.attempt, &t.node, &at); err != nil {
			l.t.Fatalf("the witness says %q: %v", lines.Text(), err)
		}
		t.ended, t.at = what == "ended", time.Unix(0, at)
		all = append(all, t)
	}
	return all
}

// count is how many executions began, and how many of them ended.
func count(all []testimony) (begun, ended int) {
	for _, t := range all {
		if t.ended {
			ended++
		} else {
			begun++
		}
	}
	return begun, ended
}

// holding are the partitions that began on a node and have not ended there, with their attempts.
func holding(all []testimony, node string) map[int]uint32 {
	held := map[int]uint32{}
	for _, t := range all {
		if t.node != node {
			continue
		}
		if t.ended {
			delete(held, t.partition)
		} else {
			held[t.partition] = t.attempt
		}
	}
	return held
}

// busiest waits until most clients run partitions of the run, and gives the one that runs most of those that run
// one that is not released: it will run something whenever a fault hits it.
func (l *ledger) busiest() (most *agent) {
	l.t.Helper()
	l.until("most clients run partitions of "+l.run, func(sheaf.RunSummary) bool {
		all, n, busy := l.heard(), 0, 0
		most = nil
		for _, a := range l.c.clients {
			held := holding(all, a.name)
			if len(held) > 0 {
				busy++
			}
			waits := false
			for partition := range held {
				waits = waits || partition >= l.free
			}
			if waits && len(held) > n {
				most, n = a, len(held)
			}
		}
		return most != nil && busy > len(l.c.clients)/2
	})
	return most
}

// check waits for the run's end and compares its result with what it must be: every record's entry once and
// nothing else, by name and digest; the book in order; and of each partition the attempt that is committed.
func (l *ledger) check() []sheaf.Partition {
	l.t.Helper()
	s := l.until(l.run+" is over", func(s sheaf.RunSummary) bool { return s.Status.Terminal() })
	n := len(l.nonces)
	if s.Status != sheaf.RunSucceeded || s.Partitions.Total != n || s.Partitions.Succeeded != n {
		l.t.Fatalf("the run of %d records ended as %+v", n, s)
	}
	partitions := l.c.partitions(l.run)
	if len(partitions) != n {
		l.t.Fatalf("a run of %d records has %d partitions", n, len(partitions))
	}
	for i, p := range partitions {
		if p.Index != i || p.State != sheaf.PartitionSucceeded {
			l.t.Errorf("at place %d of the partitions is %+v", i, p)
		}
	}
	entries, book := map[string]bool{}, false
	for _, f := range anyone(l.c, "the result of "+l.run, l.files) {
		switch f.Output {
		case "entries":
			i, err := strconv.Atoi(f.Path)
			if err != nil || i < 0 || i >= n || f.SHA256 != digest(l.entry(i)) || entries[f.Path] {
				l.t.Errorf("the result has entry %s with digest %s", f.Path, f.SHA256)
			}
			entries[f.Path] = true
		case "book":
			book = true
			l.checkBook(f, partitions)
		}
	}
	if len(entries) != n || !book {
		l.t.Errorf("the result has %d entries, want %d, and a book: %v", len(entries), n, book)
	}
	return partitions
}

// checkBook compares the book, which is one line of each partition in their order.
func (l *ledger) checkBook(f sheaf.File, partitions []sheaf.Partition) {
	l.t.Helper()
	if f.Path != "book" || len(f.Parts) != len(partitions) {
		l.t.Fatalf("the book is %s in %d parts, want %d", f.Path, len(f.Parts), len(partitions))
	}
	for i, part := range f.Parts {
		if part.Partition != i || part.Attempt != partitions[i].Attempt || part.SHA256 != digest(l.line(i, part.Attempt)) {
			l.t.Errorf("part %d of the book is %+v; the partition is %+v", i, part, partitions[i])
		}
	}
}

// entry is what the task makes of record i.
func (l *ledger) entry(i int) string {
	return fmt.Sprintf("%06d %x\n", i, sha256.Sum256([]byte(l.nonces[i])))
}

// line is the book's, as an attempt writes it.
func (l *ledger) line(i int, attempt uint32) string {
	return fmt.Sprintf("%d %d %s", i, attempt, l.entry(i))
}

func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// files reads the manifest of the merged result.
func (l *ledger) files(_ context.Context, a *agent) (files []sheaf.File, err error) {
	ctx, stop := context.WithTimeout(context.Background(), 10*askFor)
	defer stop()
	err = a.api.Result(ctx, l.run, func(f sheaf.File) error {
		files = append(files, f)
		return nil
	})
	return files, err
}

// fetch has the command line fetch the whole result, which it verifies, and looks at the bytes.
func (l *ledger) fetch(partitions []sheaf.Partition) {
	l.t.Helper()
	out := filepath.Join(l.c.dir, l.run+".result")
	l.c.results(l.run, out)
	entries, err := os.ReadDir(filepath.Join(out, "outputs", "entries"))
	if err != nil || len(entries) != len(l.nonces) {
		l.t.Fatalf("the result that was fetched has %d entries, want %d (%v)", len(entries), len(l.nonces), err)
	}
	book := ""
	for i, p := range partitions {
		book += l.line(i, p.Attempt)
		if got := read(l.t, filepath.Join(out, "outputs", "entries", fmt.Sprintf("%06d", i))); got != l.entry(i) {
			l.t.Errorf("entry %d is %q", i, got)
		}
	}
	if got := read(l.t, filepath.Join(out, "outputs", "book", "book")); got != book {
		l.t.Errorf("the book is %q", got)
	}
}

// chain has another job read the entries of the result, from every node that has some of them.
func (l *ledger) chain() {
	l.t.Helper()
	spec := filepath.Join(l.c.dir, l.run+".chain.hcl")
	write(l.t, spec, `
job "chain" {
  input "entries" {
    source = "job://ledger/entries"
    mount  = "/entries"
  }
  split {
    glob       = "/*"
    batch_size = 200
  }
  task "cat" {
    driver = "exec"
    config {
      command = "sh"
      args    = ["-c", "cat $SHEAF_INPUT_ENTRIES/*"]
    }
  }
}`)
	run, out := l.run+"-chain", filepath.Join(l.c.dir, l.run+".chain")
	l.c.submit(spec, run)
	if s := l.c.ended(run); s.Status != sheaf.RunSucceeded {
		l.t.Fatalf("the run that reads the result of %s ended as %+v", l.run, s)
	}
	l.c.results(run, out)
	var want strings.Builder
	for i := range l.nonces {
		want.WriteString(l.entry(i))
	}
	if got := read(l.t, filepath.Join(out, "stdout")); got != want.String() {
		l.t.Errorf("the entries, as another job reads them, are %d bytes, want %d", len(got), want.Len())
	}
}

// committers is how many partitions each node has committed, by its name.
func (l *ledger) committers(partitions []sheaf.Partition) map[string]int {
	l.t.Helper()
	names := map[sheaf.NodeID]string{}
	for name, n := range l.c.nodes() {
		names[n.ID] = name
	}
	by := map[string]int{}
	for _, p := range partitions {
		by[names[p.Node]]++
	}
	return by
}
