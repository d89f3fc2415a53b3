package jobspec

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sheaf-run/agent/sheaf"
)

var update = flag.Bool("update", false, "write what is found into testdata as expected")

// divider parts a jobspec from what is expected of it.
const divider = "\n---- expected ----\n"

// TestFiles reads each file of testdata/parse: above the divider a jobspec, below
// it the job's JSON, or the errors as a person sees them.
func TestFiles(t *testing.T) {
	files, err := filepath.Glob("testdata/parse/*.txt")
	if err != nil || len(files) < 30 {
		t.Fatalf("found %d files: %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			text, want, _ := strings.Cut(string(data), divider)
			job, warnings, err := Eval(source(text+"\n"), optionsFor(text))
			if err != nil && strings.Contains(err.Error(), "hidden-value") {
				t.Errorf("the sensitive value is shown:\n%s", err)
			}
			got := describe(t, job, warnings, err)
			if *update {
				if err := os.WriteFile(file, []byte(text+divider+got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
			if job != nil {
				checkComplete(t, job)
			}
		})
	}
}

// optionsFor gives values to the variables of those files that use them.
func optionsFor(text string) Options {
	opts := Options{Drivers: drivers, Env: []string{"SHEAF_VAR_key=hidden-value", "HOME=/root", "SHEAF_VAR_other=x"}}
	if strings.Contains(text, `variable "size"`) {
		opts.Vars = map[string]string{"size": "7"}
	}
	if strings.Contains(text, `variable "names"`) {
		opts.VarFiles = []Source{{Name: "vars.hcl", Data: []byte("names = [\"a\", \"b\"]\n")}}
	}
	return opts
}

func describe(t *testing.T, job *sheaf.Job, warnings Warnings, err error) string {
	t.Helper()
	var b strings.Builder
	for _, w := range warnings {
		b.WriteString("warning " + w.Text())
	}
	if err != nil {
		var ds Diagnostics
		if !errors.As(err, &ds) {
			t.Fatalf("error is %T: %v", err, err)
		}
		for _, d := range ds {
			if d.Problem.Hint == "" && !strings.HasPrefix(d.Problem.Msg, "and ") {
				t.Errorf("no way out of: %s", d.Error())
			}
			if d.Problem.Class == sheaf.Unsupported {
				b.WriteString("not supported: ")
			}
			b.WriteString(d.Text())
		}
		return b.String()
	}
	out, err := json.MarshalIndent(job, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return b.String() + string(out) + "\n"
}

// checkComplete checks what every parsed job must hold: it passes Check, filling
// in defaults again changes nothing, and its JSON and HCL give it again.
func checkComplete(t *testing.T, job *sheaf.Job) {
	t.Helper()
	if err := Check(job, drivers); err != nil {
		t.Errorf("Check refuses what Parse gave: %v", err)
	}
	want, _ := json.Marshal(job)
	again := *job
	Defaults(&again)
	if got, _ := json.Marshal(again); !bytes.Equal(got, want) {
		t.Errorf("Defaults changed\n%s to\n%s", want, got)
	}
	fromJSON, err := ParseJSON(want, drivers)
	if got, _ := json.Marshal(fromJSON); err != nil || !bytes.Equal(got, want) {
		t.Errorf("JSON came back as\n%s, %v, want\n%s", got, err, want)
	}
	hcl := Write(job)
	fromHCL, _, err := Eval(source(string(hcl)), Options{Drivers: drivers})
	if got, _ := json.Marshal(fromHCL); err != nil || !bytes.Equal(got, want) {
		t.Errorf("HCL\n%s came back as\n%s, %v, want\n%s", hcl, got, err, want)
	}
}

// TestChild parses in a real child process, which must say the same as this one.
func TestChild(t *testing.T) {
	for _, file := range []string{"testdata/parse/full.txt", "testdata/parse/mistakes.txt"} {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		text, want, _ := strings.Cut(string(data), divider)
		job, warnings, err := Parse(context.Background(), source(text+"\n"), optionsFor(text))
		if got := describe(t, job, warnings, err); got != want {
			t.Errorf("%s: got\n%s\nwant\n%s", file, got, want)
		}
	}
}
