package jobspec

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/sheaf-run/agent/sheaf"
)

// fence is a fenced block of a document.
type fence struct {
	file, kind, text string
	line             int
}

// fences finds the blocks of every document for users.
func fences(t *testing.T) []fence {
	t.Helper()
	files, err := filepath.Glob("../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat("../README.md"); err == nil {
		files = append(files, "../README.md")
	}
	var found []fence
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var open *fence
		for i, line := range strings.Split(string(data), "\n") {
			mark, isFence := strings.CutPrefix(strings.TrimSpace(line), "```")
			switch {
			case isFence && open == nil:
				open = &fence{file: filepath.Base(file), kind: strings.TrimSpace(mark), line: i + 1}
			case isFence:
				found = append(found, *open)
				open = nil
			case open != nil:
				open.text += line + "\n"
			}
		}
		if open != nil {
			t.Errorf("%s:%d: the block is not closed", open.file, open.line)
		}
	}
	return found
}

// TestDocs parses every block of HCL in the documents, so that none goes
// stale. A jobspec must be right; one of what later versions run may be refused for that alone.
func TestDocs(t *testing.T) {
	jobs, later := 0, 0
	for _, f := range fences(t) {
		if !strings.HasPrefix(f.kind, "hcl") && f.kind != "json" {
			continue
		}
		text := f.text
		if f.kind != "json" {
			if formatted, err := Format(f.file, []byte(text)); err != nil || string(formatted) != text {
				t.Errorf("%s:%d: not in the canonical layout: %v\n%s", f.file, f.line, err, formatted)
			}
			if text = asJob(text); text == "" {
				continue // something else's configuration, of which the syntax is checked
			}
		} else if !strings.Contains(text, `"task": {`) {
			continue
		}
		jobs++
		known := drivers
		if strings.Contains(text, `driver = "example"`) {
			known = nil // a plugin's config is its own to check
		}
		_, _, err := Eval(source(text), Options{Drivers: known})
		var ds Diagnostics
		if errors.As(err, &ds) && strings.Contains(text, `job "later"`) {
			later++
			for _, r := range refusals {
				if !slices.ContainsFunc(ds, func(d Diagnostic) bool { return strings.HasPrefix(d.Problem.Msg, r.what) }) {
					t.Errorf("%s:%d: it leaves out %s", f.file, f.line, r.what)
				}
			}
			ds = slices.DeleteFunc(ds, func(d Diagnostic) bool { return d.Problem.Class == sheaf.Unsupported })
			err = ds.orNil()
		}
		if err != nil {
			t.Errorf("%s:%d: %v", f.file, f.line, err)
		}
	}
	if jobs < 5 || later != 1 {
		t.Errorf("%d jobspecs are in the documents, %d of them for later versions", jobs, later)
	}
}

// asJob is a jobspec of a block: the block, or for a part of a job a job around it; "" for
// what is neither.
func asJob(text string) string {
	file, _ := hclsyntax.ParseConfig([]byte(text), "", hcl.InitialPos)
	body, ok := file.Body.(*hclsyntax.Body)
	if !ok {
		return ""
	}
	has := map[string]bool{}
	for _, b := range body.Blocks {
		has[b.Type] = true
	}
	if has["job"] {
		return text
	}
	for _, a := range body.Attributes {
		has[a.Name] = true
	}
	for name := range has {
		if !slices.Contains([]string{"input", "split", "task", "output", "retry", "failure", "count", "priority", "timeout", "meta"}, name) {
			return ""
		}
	}
	if !has["task"] {
		text += plainTask + "\n"
	}
	if has["split"] && !has["input"] {
		text += "input \"in\" {\n  source = \"/data\"\n  mount = \"/input\"\n}\n"
	}
	return "job \"j\" {\n" + text + "}\n"
}

// TestFunctionsAreDocumented keeps the reference's list of functions whole.
func TestFunctionsAreDocumented(t *testing.T) {
	data, err := os.ReadFile("../docs/jobspec.md")
	if err != nil {
		t.Fatal(err)
	}
	for name := range functions {
		if !strings.Contains(string(data), "`"+name+"`") {
			t.Errorf("function %s is not in the reference", name)
		}
	}
}
