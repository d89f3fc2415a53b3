package operations

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sheaf-run/agent/e2e/build"
)

// page is what a page's reader has beside it. Files and programs that the examples name are made by testdata/pages.
type page struct {
	agent   string                  // the command by which an agent runs when the reading begins
	example string                  // the same, with the last configuration of docs/agent.md
	before  map[string]string       // commands, by the section that they come before
	after   map[string]string       // commands that must succeed then
	swap    func(s *site) [2]string // what stands in the page, and stands for something that is made anew each time
	refused string                  // the job that this version refuses
	folder  string                  // where the reader is, if not at home
}

// around has the pages that need something. All others begin on a machine that has a binary and nothing else.
var around = map[string]page{
	"readme": {
		after: map[string]string{"A job": "[ $(ls result/outputs/thumbs | wc -l) = 3 ]"},
	},
	"quickstart": {
		after: map[string]string{
			"Files":            "[ $(wc -l < result/outputs/counts/words.txt) -gt 10 ]",
			"When things fail": "agent job wait last || [ $? = 3 ]",
			"Without an agent": "cmp result/outputs/counts/words.txt result2/outputs/counts/words.txt",
		},
	},
	"jobspec": {example: "jobspec.md", refused: "later", folder: "/srv/jobs/",
		before: map[string]string{"Sandboxes without containers": `
			printf %s drowssap | agent secret put db-password -job load
			printf %s key | agent secret put tls-key -job load
			printf %s team:drowssap | agent secret put registry -job load`},
		after: map[string]string{"Publishing": "[ $(cat /opt/buckets/results/thumbnails/*/*/outputs/pictures/* | wc -l) = 100 ]"}},
	"agent":    {},
	"api":      {agent: "agent dev", before: map[string]string{"The HTTP API": "agent job run -detach -exec -name thumbs -- sleep 600"}},
	"acl":      {after: map[string]string{"Policies": "agent acl token list | grep -w ci", "Namespaces": "agent -namespace team-a job status job"}},
	"bacalhau": {agent: "agent dev", after: map[string]string{"Coming from Bacalhau": "[ $(cat result/outputs/sums/*/* | wc -l) = 6 ]"}},
	"drivers": {swap: func(s *site) [2]string {
		return [2]string{"2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae", strings.Fields(s.run("drivers", "sha256sum example"))[0]}
	}},
	"secrets":  {agent: "agent dev", before: map[string]string{"Secrets": "PASSWORD=drowssap; export PASSWORD"}},
	"security": {before: map[string]string{"HTTPS": "export SHEAF_ADDR=https://10.0.0.1:7610 SHEAF_CACERT=ca.pem; (umask 077; mkdir -p ~/.config/sheaf; agent acl bootstrap -q > ~/.config/sheaf/token)"}},
}

// builds are what machines get that is made from source: Go's package, by machine and path.
var builds = map[string]struct{ pkg, goos, goarch string }{
	"jobspec/srv/jobs/square.wasm":  {"./testdata/task", "wasip1", "wasm"},
	"jobspec/srv/jobs/caption.wasm": {"./testdata/task", "wasip1", "wasm"},
	"drivers/root/example":          {"../../drivers/plugin/example", "linux", ""},
}

// TestPages reads every page but the guide as a person would: each job is run, each configuration starts an agent,
// each command is typed, in the order of the page. What an example's kind is, is told by the example.
func TestPages(t *testing.T) {
	files := slices.DeleteFunc(pages(t), func(f string) bool { return f == guideFile })
	var machines []machine
	for i, f := range files {
		machines = append(machines, machine{machineOf(f), "10.20.0." + string(rune('0'+i/10+1)) + string(rune('0'+i%10))})
	}
	for name := range around {
		if !slices.ContainsFunc(machines, func(m machine) bool { return m.name == name }) {
			t.Errorf("there is no page %q", name)
		}
	}
	s := newSite(t, machines)
	furnish(s, s.path("jobspec/srv/photos.car"))
	for path, b := range builds {
		env := []string{"GOOS=" + b.goos}
		if b.goarch != "" {
			env = append(env, "GOARCH="+b.goarch)
		}
		if err := build.Program(s.path(path), b.pkg, env...); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			mine := *s
			mine.t = t
			r := newReader(&mine, file)
			defer func() {
				if t.Failed() {
					t.Log(mine.logs())
				}
			}()
			r.read()
		})
	}
}

func machineOf(file string) string {
	return strings.ToLower(strings.TrimSuffix(filepath.Base(file), ".md"))
}

// reader reads a page at a machine.
type reader struct {
	page
	s       *site
	machine string
	blocks  []block
	printed string // by the last commands
	results int    // how many were fetched
}

func newReader(s *site, file string) *reader {
	s.t.Helper()
	r := &reader{s: s, machine: machineOf(file)}
	r.page = around[r.machine]
	var headings []string
	r.blocks, headings = readPage(s.t, file)
	for _, hooks := range []map[string]string{r.before, r.after} {
		for section := range hooks {
			if !slices.Contains(headings, section) {
				s.t.Fatalf("%s has no section %q", file, section)
			}
		}
	}
	return r
}

// dir is where the reader is.
func (r *reader) dir() string {
	if r.folder != "" {
		return r.folder
	}
	return "/root/"
}

func (r *reader) read() {
	if len(r.blocks) == 0 {
		return
	}
	r.settle()
	for i, b := range r.blocks {
		began := time.Now()
		if i == 0 || r.blocks[i-1].section != b.section {
			r.run(r.before[b.section])
		}
		if what := r.kind(b); what == nil {
			r.s.t.Errorf("%s:%d: nobody knows what this is:\n%s", b.page, b.line, b.text)
		} else {
			what(i)
		}
		if i == len(r.blocks)-1 || r.blocks[i+1].section != b.section {
			r.run(r.after[b.section])
		}
		r.s.t.Logf("%s:%d took %s", b.page, b.line, time.Since(began).Round(time.Millisecond))
	}
	r.run("if systemctl is-active agent 2>/dev/null; then systemctl stop agent; fi")
}

// settle gives the machine what the reader has.
func (r *reader) settle() {
	r.s.t.Helper()
	if err := os.Link(binary, r.s.path(r.machine+"/usr/local/bin/agent")); err != nil {
		r.s.t.Fatal(err)
	}
	if script, err := os.ReadFile("testdata/pages/" + r.machine + ".sh"); err == nil {
		r.run(string(script))
	}
	if r.swap != nil {
		pair := r.swap(r.s)
		found := false
		for i, b := range r.blocks {
			found = found || strings.Contains(b.text, pair[0])
			r.blocks[i].text = strings.ReplaceAll(b.text, pair[0], pair[1])
		}
		if !found {
			r.s.t.Errorf("no block has %s", pair[0])
		}
	}
	if r.agent != "" {
		r.start(r.agent)
	}
	if r.example != "" {
		blocks, _ := readPage(r.s.t, "../../docs/agent.md")
		r.configuration(blocks[len(blocks)-1])
	}
}

// run does what is no part of the page.
func (r *reader) run(commands string) {
	r.s.t.Helper()
	if commands != "" {
		r.s.run(r.machine, commands)
	}
}

// later tells whether commands behind a block name something.
func (r *reader) later(i int, what string) bool {
	return slices.ContainsFunc(r.blocks[i+1:], func(b block) bool { return b.kind == "sh" && strings.Contains(b.text, what) })
}

// same compares JSON.
func same(a, b string) bool {
	var x, y any
	if json.Unmarshal([]byte(a), &x) != nil || json.Unmarshal([]byte(b), &y) != nil {
		return false
	}
	m, _ := json.Marshal(x)
	n, _ := json.Marshal(y)
	return string(m) == string(n)
}
