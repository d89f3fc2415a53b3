package provenance_test

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/sheaf-run/agent/server/provenance"
	"github.com/sheaf-run/agent/sheaf"
)

// manifest is one with names that are hard to find: quotes, bytes that are no text, one that begins
// another, and a file of so many parts that its line fits no buffer.
func manifest() []byte {
	var b []byte
	add := func(output, path string, parts ...sheaf.Part) {
		f := sheaf.File{Output: output, Path: path, Parts: parts}
		for _, p := range parts {
			f.Size += p.Size
		}
		if len(parts) == 0 {
			f.Link = "elsewhere"
		}
		b = append(f.AppendJSON(b), '\n')
	}
	var many []sheaf.Part
	for i := range 5000 {
		many = append(many, sheaf.Part{Partition: i, Attempt: 1, Node: "n", Size: 2, SHA256: strings.Repeat("a", 64)})
	}
	one := func(p int) sheaf.Part { return sheaf.Part{Partition: p, Attempt: 3, Size: int64(p), Path: "own"} }
	add("out", "a", one(1))
	add("out", "ab", one(2))
	add("out", "b/\xff/x", one(3))
	add("out", "b/link")
	add("out", `b/q","size":1/"y`, one(4))
	add("out", "c", many...)
	add("out", "d\xff", one(5))
	add("out2", "a", one(6))
	return b
}

func TestFind(t *testing.T) {
	whole := "a 1\nab 2\nb/\xff/x 3\nb/link\nb/q\",\"size\":1/\"y 4\nc 5000 parts\nd\xff 5\n"
	for _, c := range []struct{ output, path, want string }{
		{"out", "a", "a 1\n"},
		{"out", "ab", "ab 2\n"},
		{"out", "b", "b/\xff/x 3\nb/link\nb/q\",\"size\":1/\"y 4\n"},
		{"out", "b/\xff", "b/\xff/x 3\n"},
		{"out", "b/\xff/x", "b/\xff/x 3\n"},
		{"out", `b/q","size":1`, "b/q\",\"size\":1/\"y 4\n"},
		{"out", "b/link", "b/link\n"},
		{"out", "c", "c 5000 parts\n"},
		{"out", "d\xff", "d\xff 5\n"},
		{"out", "", whole},
		{"out2", "a", "a 6\n"},
		{"out2", "", "a 6\n"},
		{"out", "aa", ""},
		{"out", "d", ""},
		{"ou", "a", ""},
	} {
		for name, in := range map[string]io.Reader{"whole": bytes.NewReader(manifest()), "by byte": iotest.OneByteReader(bytes.NewReader(manifest())), "without its last end": bytes.NewReader(bytes.TrimSuffix(manifest(), []byte("\n")))} {
			var got strings.Builder
			n := 0
			end := func() {
				if n > 1 {
					fmt.Fprintf(&got, " %d parts", n)
				}
				if got.Len() > 0 {
					got.WriteByte('\n')
				}
				n = 0
			}
			err := provenance.Find(in, c.output, c.path, provenance.Found{
				File: func(f sheaf.File) error {
					end()
					got.WriteString(f.Path)
					return nil
				},
				Part: func(p sheaf.Part) error {
					if n++; p.Path == "own" {
						fmt.Fprintf(&got, " %d", p.Partition)
					}
					return nil
				},
			})
			end()
			if err != nil || got.String() != c.want {
				t.Errorf("%s of %q in %q: %v\n got %q\nwant %q", name, c.path, c.output, err, got.String(), c.want)
			}
		}
	}
}

func TestFindBroken(t *testing.T) {
	found := provenance.Found{File: func(sheaf.File) error { return nil }, Part: func(sheaf.Part) error { return nil }}
	for _, text := range []string{`{"output":"out","path":"c","size":`, `{"output":"out","path":"c","size":1,"parts":[{]}`, `{"output":"out","path":"c","parts":[{"partition":"x"}]}`} {
		if err := provenance.Find(strings.NewReader(text), "out", "c", found); err == nil {
			t.Errorf("%s is read as a manifest", text)
		}
	}
	if err := provenance.Find(iotest.TimeoutReader(iotest.OneByteReader(bytes.NewReader(manifest()))), "out", "c", found); err == nil {
		t.Error("a manifest that breaks off is read as if it were whole")
	}
}
