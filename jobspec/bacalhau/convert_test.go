package bacalhau_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sheaf-run/agent/drivers/builtin"
	"github.com/sheaf-run/agent/jobspec"
	"github.com/sheaf-run/agent/jobspec/bacalhau"
	"github.com/sheaf-run/agent/sheaf"
)

var update = flag.Bool("update", false, "write what is expected anew")

// Each file's conversion stands beside it, notes first.
func TestConvert(t *testing.T) {
	files, err := filepath.Glob("testdata/*.[yj]*")
	if err != nil || len(files) < 6 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			src, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			job, notes, err := bacalhau.Convert(src, "fallback")
			if err != nil {
				t.Fatal(err)
			}
			var got bytes.Buffer
			for _, n := range notes {
				fmt.Fprintf(&got, "# %s\n", n)
			}
			text := jobspec.Write(job)
			got.Write(text)
			golden := strings.TrimSuffix(file, filepath.Ext(file)) + ".hcl"
			if *update {
				if err := os.WriteFile(golden, got.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got.Bytes(), want) {
				t.Errorf("got\n%s\nwant\n%s", got.Bytes(), want)
			}
			if mistakes := check(text); len(mistakes) > 0 {
				t.Errorf("what was written is wrong: %v", mistakes)
			}
		})
	}
}

// check are the mistakes of a jobspec, without those that are parts of a later version.
func check(text []byte) (list []error) {
	_, _, err := jobspec.Eval(jobspec.Source{Name: "job.hcl", Data: text}, jobspec.Options{Drivers: builtin.Schemas()})
	ds, _ := err.(jobspec.Diagnostics) //nolint:errorlint // Eval's error is of this type
	for _, d := range ds {
		if d.Problem.Class != sheaf.Unsupported {
			list = append(list, d)
		}
	}
	return list
}

const task = "Tasks: [{Name: main, Engine: {Type: docker, Params: {Image: a}}"

func TestRefused(t *testing.T) {
	for name, tt := range map[string]struct{ src, want string }{
		"empty":             {"", "empty"},
		"no YAML":           {"Name: [", "did not find"},
		"a template":        {"Name: {{.name}}-1\nCount: 1\n", "fills in"},
		"two documents":     {"Name: a\n---\nName: b\n", "more than one document"},
		"an alias":          {"a: &x [1]\nb: *x\n", "line 2: an alias"},
		"nested too deeply": {"a: " + strings.Repeat("[", 70) + strings.Repeat("]", 70), "nesting beyond 64"},
		"a key twice":       {"Name: a\nname: b\n", `line 2: the key "name" is there twice`},
		"a list":            {"- a\n", "a job is a mapping"},
		"the old format":    {"APIVersion: V1beta2\nSpec: {}\n", "old format"},
		"no task":           {"Name: a\n", "there are 0 tasks"},
		"two tasks":         {"Name: a\nTasks: [{Name: b}, {Name: c}]\n", "there are 2 tasks"},
		"a service":         {"Name: a\nType: service\n" + task + "}]", "runs without end"},
		"another engine":    {"Tasks: [{Name: a, Engine: {Type: python}}]", `the engine is "python"`},
		"no image":          {"Tasks: [{Name: a, Engine: {Type: docker}}]", "has no Image"},
		"no module":         {"Tasks: [{Name: a, Engine: {Type: wasm}}]", "has no Source"},
		"a count of words":  {"Count: many\n" + task + "}]", "no whole number"},
		"no target":         {task + ", InputSources: [{Source: {Type: ipfs, Params: {CID: a}}}]}]", "has no Target"},
		"another source":    {task + ", InputSources: [{Target: /a, Source: {Type: git}}]}]", `the source is "git"`},
		"a relative source": {task + ", InputSources: [{Target: /a, Source: {Type: local, Params: {SourcePath: b}}}]}]", "no absolute path"},
		"no bucket":         {task + ", InputSources: [{Target: /a, Source: {Type: s3, Params: {Key: b}}}]}]", "has no Bucket"},
		"a strange size":    {task + ", Resources: {Memory: lots}}]", "is no size"},
		"strange cores":     {task + ", Resources: {CPU: -1}}]", "no number of cores"},
		"another network":   {task + ", Network: {Type: Token Ring}}]", `the network is "Token Ring"`},
		"a negative time":   {task + ", Timeouts: {TotalTimeout: -1}}]", "is no time"},
		"a huge time":       {task + ", Timeouts: {TotalTimeout: 9223372036854775807}}]", "is no time"},
		"too long":          {strings.Repeat("#", bacalhau.MaxSize+1), "too long"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := bacalhau.Convert([]byte(tt.src), "fallback")
			if err == nil || !strings.Contains(err.Error()+hint(err), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if c := sheaf.ClassOf(err); c != sheaf.Invalid && c != sheaf.Unsupported && c != sheaf.TooLarge {
				t.Errorf("class %v", c)
			}
		})
	}
}

func hint(err error) string {
	if e, ok := err.(*sheaf.Error); ok { //nolint:errorlint // Convert's errors are of this type
		return e.Hint
	}
	return ""
}

// Nothing that a file holds can end a comment and be read as the job's text.
func TestNotesAreOneLine(t *testing.T) {
	_, notes, err := bacalhau.Convert([]byte("\"Odd\\njob \\\"x\\\" {\": 1\n"+task+"}]"), "fallback")
	if err != nil || len(notes) != 2 {
		t.Fatalf("%v, %v", notes, err)
	}
	for _, n := range notes {
		if strings.ContainsAny(n.String(), "\n\r") {
			t.Errorf("%q", n)
		}
	}
}

func FuzzConvert(f *testing.F) {
	files, err := filepath.Glob("testdata/*.[yj]*")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		src, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(src)
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		job, _, err := bacalhau.Convert(src, "fallback")
		if err == nil && len(jobspec.Write(job)) == 0 {
			t.Error("a job of nothing")
		}
	})
}
