package operations

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// kind is what is done with a block, which is told by what stands in it.
func (r *reader) kind(b block) func(i int) {
	switch b.kind {
	case "text":
		return func(int) {}
	case "sh":
		if words := strings.Fields(b.text); words[0] == "make" || words[0] == "go" {
			return r.contribute
		}
		return r.commands
	case "yaml":
		return r.file
	case "json":
		if strings.Contains(b.text, `"task": {`) {
			return r.job
		}
		return r.reply
	case "hcl":
		top := topLevel(b.text)
		switch {
		case slices.Contains(top, "job"):
			return r.job
		case strings.Contains(b.text, "policy = ") || strings.Contains(b.text, "capabilities = "):
			return r.file
		case len(top) > 0:
			return func(i int) { r.configuration(r.blocks[i]) }
		}
	}
	return nil
}

// topLevel names the outermost blocks and arguments.
func topLevel(text string) (names []string) {
	file, diags := hclsyntax.ParseConfig([]byte(text), "", hcl.InitialPos)
	body, ok := file.Body.(*hclsyntax.Body)
	if diags.HasErrors() || !ok {
		return nil
	}
	for _, b := range body.Blocks {
		names = append(names, b.Type)
	}
	for name := range body.Attributes {
		names = append(names, name)
	}
	return names
}

// file writes a block to the file that the page calls it, which later commands must make use of.
func (r *reader) file(i int) {
	b := r.blocks[i]
	if b.file == "" || !r.later(i, b.file) {
		r.s.t.Errorf("%s:%d: the paragraph before it names no file that commands behind it use", b.page, b.line)
		return
	}
	r.s.write(r.machine+r.dir()+b.file, b.text)
}

// job runs a job to its end, or leaves that to the commands of the page where it is a file of these. Every output has files then.
func (r *reader) job(i int) {
	b := r.blocks[i]
	name, outputs := describe(b)
	if b.file != "" {
		if !r.later(i, "job run "+b.file) && !r.later(i, "job run -local "+b.file) {
			r.s.t.Errorf("%s:%d: no command behind it runs %s", b.page, b.line, b.file)
		}
		r.file(i)
		return
	}
	path := name + "." + b.kind
	r.s.write(r.machine+r.dir()+path, b.text)
	if name == r.refused {
		out, err := r.s.try(r.machine, "agent job run "+path)
		if err == nil || !strings.Contains(out, "is not supported in this version") {
			r.s.t.Errorf("%s:%d: it is not refused: %v\n%s", b.page, b.line, err, out)
		}
		return
	}
	r.results++
	result := fmt.Sprintf("results/%d", r.results)
	out, err := r.s.try(r.machine, fmt.Sprintf("agent job run %s -o %s", path, result))
	if err != nil {
		r.s.t.Errorf("%s:%d: job %q: %v\n%s\n--- printed\n%s", b.page, b.line, name, err, b.text, out)
		return
	}
	for _, o := range outputs {
		if files, _ := filepath.Glob(r.s.path(r.machine + r.dir() + result + "/outputs/" + o + "/*")); len(files) == 0 {
			r.s.t.Errorf("%s:%d: job %q: the output %s is empty\n%s", b.page, b.line, name, o, out)
		}
	}
}

// describe gives the name of a job and of its outputs.
func describe(b block) (name string, outputs []string) {
	if b.kind == "json" {
		var job struct{ Name string }
		_ = json.Unmarshal([]byte(b.text), &job)
		return job.Name, nil
	}
	file, _ := hclsyntax.ParseConfig([]byte(b.text), "", hcl.InitialPos)
	var find func(body *hclsyntax.Body)
	find = func(body *hclsyntax.Body) {
		for _, inner := range body.Blocks {
			switch inner.Type {
			case "job":
				name = inner.Labels[0]
				find(inner.Body)
			case "reduce":
				find(inner.Body)
			case "output":
				outputs = append(outputs, inner.Labels[0])
			}
		}
	}
	find(file.Body.(*hclsyntax.Body))
	return name, outputs
}

// base is what a configuration that shows a part of one stands over.
const base = `server {
  enabled = true
}
client {
  enabled = true
  drivers = ["exec"]
}
`

// configuration starts an agent with a configuration, in the place of the one that runs. Its data directory is named for the
// machine: an agent ends what a killed one with the same directory left, and machines see each other's processes.
func (r *reader) configuration(b block) {
	r.s.write(r.machine+"/root/base.hcl", base)
	r.s.write(r.machine+"/etc/sheaf.d/agent.hcl", b.text)
	r.s.write(r.machine+"/root/own.hcl", fmt.Sprintf("data_dir = %q\n", "/var/lib/"+r.machine))
	r.start("agent start -config /root/base.hcl -config /etc/sheaf.d -config /root/own.hcl")
}

// start starts an agent, in the place of the one that runs and without what that one kept, and waits until it is ready.
func (r *reader) start(agent string) {
	r.s.t.Helper()
	out, err := r.s.try(r.machine, fmt.Sprintf(`
		if systemctl is-active agent 2>/dev/null; then systemctl stop agent; fi
		rm -rf /var/lib/%s
		printf '[Service]\nExecStart=%%s\n' %q > /etc/systemd/system/agent.service
		systemctl start agent
		ready() { for at in http://127.0.0.1 https://127.0.0.1 https://10.0.0.1; do ! curl -kfs -m 2 -o /dev/null $at:7610/readyz || return 0; done; false; }
		until ready; do systemctl is-active agent || { cat /run/units/agent.log; exit 1; }; sleep 0.1; done`, r.machine, agent))
	if err != nil {
		r.s.t.Fatalf("%s: %q: %v\n%s", r.machine, agent, err, out)
	}
}

var (
	isAgent  = regexp.MustCompile(`^agent (dev|start)\b[^#&]*`)
	exitCode = regexp.MustCompile(`# exit code (\d+)$`)
)

// commands types what the page says: all of it must succeed but lines of which it is said how they end. An agent that
// runs until it is stopped gets a terminal of its own.
func (r *reader) commands(i int) {
	b := r.blocks[i]
	r.printed = ""
	script := ""
	flush := func() {
		if script == "" {
			return
		}
		out, err := r.s.try(r.machine, script)
		if err != nil {
			r.s.t.Fatalf("%s:%d, %q: %v\n%s\n--- printed\n%s", b.page, b.line, b.section, err, b.text, out)
		}
		r.s.t.Logf("%s:%d\n%s", b.page, b.line, strings.TrimSpace(out))
		r.printed += out
		script = ""
	}
	for line := range strings.Lines(b.text) {
		line = strings.TrimSuffix(line, "\n")
		if agent := isAgent.FindString(line); agent != "" {
			flush()
			r.start(strings.TrimSpace(agent))
		} else if m := exitCode.FindStringSubmatch(line); m != nil {
			script += fmt.Sprintf("ends=0\n%s\n[ $ends = %s ]\n", exitCode.ReplaceAllString(line, "|| ends=$?"), m[1])
		} else {
			script += line + "\n"
		}
	}
	flush()
	refusal := strings.Contains(r.printed, `"code":"`) && strings.Contains(r.printed, `"title":"`)
	if expected := i+1 < len(r.blocks) && r.blocks[i+1].kind == "json"; refusal && !expected {
		r.s.t.Errorf("%s:%d: a request is refused: %s", b.page, b.line, r.printed)
	}
}

// reply is what the commands before it print.
func (r *reader) reply(i int) {
	if b := r.blocks[i]; !same(b.text, r.printed) {
		r.s.t.Errorf("%s:%d: the page says\n%s\nand the answer is\n%s", b.page, b.line, b.text, r.printed)
	}
}

// inCheckout is what becomes of commands in a checkout. What takes minutes, or runs this test, is only looked at: its targets and flags
// must be there. Others than these are not known.
var inCheckout = []struct{ command, stead string }{
	{`make demo`, `make -n demo && go run ./e2e/demo -agent $AGENT -o $RESULT`},
	{`make ([a-z0-9-]+)`, `make -n $1`},
	{`go run (\./e2e/[a-z]+)( .*)?`, `go run $1$2 -h`},
}

// contribute does what is done in a checkout.
func (r *reader) contribute(i int) {
	b := r.blocks[i]
	for line := range strings.Lines(b.text) {
		line, _, _ = strings.Cut(line, "#")
		line = strings.TrimSpace(line)
		stead := ""
		for _, c := range inCheckout {
			if known := regexp.MustCompile("^" + c.command + "$"); stead == "" && known.MatchString(line) {
				stead = known.ReplaceAllString(line, strings.NewReplacer("$AGENT", binary, "$RESULT", r.s.path("demo")).Replace(c.stead))
			}
		}
		if stead == "" {
			r.s.t.Errorf("%s:%d: nobody knows what to do with %q", b.page, b.line, line)
			continue
		}
		cmd := exec.Command("sh", "-ec", stead)
		cmd.Dir = "../.."
		if out, err := cmd.CombinedOutput(); err != nil {
			r.s.t.Errorf("%s:%d: %s, that is %s: %v\n%s", b.page, b.line, line, stead, err, out)
		}
	}
}
