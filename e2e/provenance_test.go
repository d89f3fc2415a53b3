package e2e

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sheaf-run/agent/api"
)

// provenanceJob copies each file of a partition to a folder of its own, and joins all to one.
func provenanceJob(in string) string {
	return fmt.Sprintf(`
job "trace" {
  reuse = true
  input "in" {
    source = "file://%s"
    mount  = "/in"
  }
  split {
    glob       = "/*"
    batch_size = 2
  }
  task "copy" {
    driver = "exec"
    config {
      command = "/bin/sh"
      args    = ["-c", "cd $SHEAF_INPUT_IN; for f in *; do mkdir -p $SHEAF_OUTPUT_EACH/d/$f; cp $f $SHEAF_OUTPUT_EACH/d/$f/copy; done; cat * > $SHEAF_OUTPUT_ALL/joined"]
    }
  }
  output "each" {
    path = "/each"
  }
  output "all" {
    path  = "/all"
    merge = "concat"
  }
}
`, in)
}

// traced is what -json says of a file.
type traced struct {
	api.ProvenanceFile
	MadeOf []api.ProvenancePart `json:"made_of"`
}

func (a *agent) traced(run, path string, more ...string) traced {
	a.t.Helper()
	var got traced
	text := a.ok(append([]string{"job", "results", "-json", "-provenance", path, run}, more...)...)
	if err := json.Unmarshal([]byte(text), &got); err != nil {
		a.t.Fatalf("%v: %s", err, text)
	}
	return got
}

// TestProvenance: of every file of a result the partition, attempt, node and inputs are those that are
// known to have made it, also where an earlier run has.
func TestProvenance(t *testing.T) {
	a := startAgent(t)
	in := t.TempDir()
	names := []string{"a", "b", "c", "d", "e"}
	identity := map[string]string{}
	for i, name := range names {
		write(t, filepath.Join(in, name), strings.Repeat(name, i+1))
		st, err := os.Stat(filepath.Join(in, name))
		if err != nil {
			t.Fatal(err)
		}
		identity["/in/"+name] = fmt.Sprintf("stat:%d:%d", st.Size(), st.ModTime().UnixNano())
	}
	spec := jobspec(t, provenanceJob(in))
	a.ok("job", "run", "-id", "first", spec)
	node := a.partitions("first")[0].Node

	check := func(run string, got traced, made string, parts ...int) {
		t.Helper()
		if string(got.Run) != run || got.Job != "trace" || got.Task != "copy" || got.Driver != "exec" || got.Config["command"] != "/bin/sh" || len(got.MadeOf) != len(parts) || got.Parts != len(parts) {
			t.Fatalf("%s: %+v", got.Path, got)
		}
		at := int64(0)
		for i, p := range got.MadeOf {
			if p.Partition != parts[i] || p.Attempt != 1 || p.Node != node || p.NodeName == "" || p.Started == nil || p.Offset != at && got.Files == 0 {
				t.Errorf("%s: part %d is %+v", got.Path, i, p)
			}
			at += p.Size
			if made == "" != (p.MadeBy == nil) || p.MadeBy != nil && (string(p.MadeBy.Run) != made || p.MadeBy.Partition != p.Partition) {
				t.Errorf("%s: part %d is made by %+v", got.Path, i, p.MadeBy)
			}
			if want := names[2*parts[i] : min(2*parts[i]+2, len(names))]; len(p.Atoms) != len(want) || p.AtomsAll != len(want) {
				t.Errorf("%s: partition %d has read %+v", got.Path, p.Partition, p.Atoms)
			}
			for j, x := range p.Atoms {
				if want := "/in/" + names[2*parts[i]+j]; x.Path != want || x.Identity != identity[want] || x.Input != "in" {
					t.Errorf("%s: partition %d has read %+v", got.Path, p.Partition, x)
				}
			}
		}
	}
	for i, name := range names {
		got := a.traced("first", "each/d/"+name+"/copy")
		check("first", got, "", i/2)
		if want := fmt.Sprintf("%x", sha256.Sum256([]byte(strings.Repeat(name, i+1)))); got.SHA256 != want || got.Size != int64(i+1) {
			t.Errorf("%s has digest %s, want %s", name, got.SHA256, want)
		}
	}
	check("first", a.traced("first", "all/joined"), "", 0, 1, 2)
	check("first", a.traced("first", "outputs/each/d"), "", 0, 1, 2)
	check("first", a.traced("first", "each/d/d"), "", 1)
	check("first", a.traced("first", "stdout"), "", 0, 1, 2)
	check("first", a.traced("first", "partitions/1/stderr"), "", 1)
	if got := a.traced("first", "each"); got.Files != 5 || got.Size != 15 || got.Partitions.String() != "0-2" {
		t.Errorf("the whole output: %+v", got)
	}
	if got := a.traced("first", "all/joined", "-n", "2"); len(got.MadeOf) != 2 || got.Parts != 3 || got.Partitions.String() != "0-2" {
		t.Errorf("two of three parts: %+v", got)
	}

	// What an earlier run has made is told with that run, and what ran anew without.
	write(t, filepath.Join(in, "e"), "changed")
	a.ok("job", "run", "-id", "second", spec)
	check("second", a.traced("second", "each/d/b/copy"), "first", 0)
	check("second", a.traced("second", "partitions/0/stdout"), "first", 0)
	if got := a.traced("second", "each/d/e/copy"); got.MadeOf[0].MadeBy != nil || got.MadeOf[0].Partition != 2 || got.MadeOf[0].Atoms[0].Identity == identity["/in/e"] {
		t.Errorf("what ran anew: %+v", got)
	}
	text := a.ok("job", "results", "-provenance", "each/d/b/copy", "second")
	for _, want := range []string{"partition 0, attempt 1", "run first", "read /in/a", identity["/in/b"], `merge = "union"`} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	for path, want := range map[string]string{"each/nothing": "no file", "nope/x": "no output", "each/d/": "", "partitions/9/stdout": "nothing of a partition 9", "partitions/x": "no output", "stdout": ""} {
		if r := a.cli("job", "results", "-provenance", path, "second"); (r.code == 0) != (want == "") || !strings.Contains(r.stderr, want) {
			t.Errorf("%s: exit %d\n%s", path, r.code, r.stderr)
		}
	}
}
