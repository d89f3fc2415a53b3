package jobspec

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/sheaf-run/agent/sheaf"
)

func seeds(f *testing.F) {
	files, err := filepath.Glob("testdata/parse/*.txt")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		text, _, _ := strings.Cut(string(data), divider)
		f.Add([]byte(text))
	}
	for _, s := range []string{"", "{", "}", "job", "job \"a\" {", "a = [for x in [1] : x]", "\ufeff{\"name\":1}", "x = <<EOT\n${a}\nEOT\n", `{"a":"\ud800"}`, "a = \"%{if\""} {
		f.Add([]byte(s))
	}
}

// FuzzParse gives any bytes: what comes back is a complete job that passes its
// own rules, or mistakes each with a class and text that a terminal can show.
func FuzzParse(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 4<<10 || strings.Contains(string(data), "for") {
			return // evaluated within this process, which loops could take over
		}
		job, _, err := Eval(Source{Name: "job.hcl", Dir: "/jobs", Data: data}, Options{Drivers: drivers})
		if err == nil {
			checkParsed(t, job)
			return
		}
		var ds Diagnostics
		if !errors.As(err, &ds) || job != nil || len(ds) == 0 || len(ds) > maxDiagnostics+1 {
			t.Fatalf("got %v and %T %v", job, err, err)
		}
		for _, d := range ds {
			if d.Problem.Class != sheaf.Invalid && d.Problem.Class != sheaf.Unsupported && d.Problem.Class != sheaf.TooLarge {
				t.Errorf("class %q of %v", d.Problem.Class, d)
			}
			if text := d.Text(); !utf8.ValidString(text) || strings.ContainsAny(text, "\x1b\r\x00") {
				t.Errorf("text %q", text)
			}
		}
	})
}

// checkParsed checks that a job's JSON comes back as it is.
func checkParsed(t *testing.T, job *sheaf.Job) {
	t.Helper()
	want, err := json.Marshal(job)
	if err != nil {
		t.Fatal(err)
	}
	again, err := ParseJSON(want, drivers)
	if err != nil {
		t.Fatalf("%s is refused: %v", want, err)
	}
	if got, _ := json.Marshal(again); string(got) != string(want) {
		t.Fatalf("got %s, want %s", got, want)
	}
}

// FuzzFormat checks that formatting is stable and keeps what a file says.
func FuzzFormat(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		once, err := Format("job.hcl", data)
		if err != nil {
			return
		}
		twice, err := Format("job.hcl", once)
		if err != nil {
			t.Fatalf("the result is refused: %v\n%s", err, once)
		}
		if string(once) != string(twice) {
			t.Fatalf("formatting again changes\n%q to\n%q", once, twice)
		}
	})
}
