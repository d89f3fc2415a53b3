package agent

import (
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// arguments lists the arguments of a block and of those within it, as "block.argument"; names of blocks are
// their paths, and the outermost has none.
func arguments(block string, of reflect.Type) (list, blocks []string) {
	for i := range of.NumField() {
		name, kind, _ := strings.Cut(of.Field(i).Tag.Get("hcl"), ",")
		path := strings.TrimPrefix(block+"."+name, ".")
		switch kind {
		case "label":
		case "block":
			inner := of.Field(i).Type
			for inner.Kind() == reflect.Pointer || inner.Kind() == reflect.Slice {
				inner = inner.Elem()
			}
			args, deeper := arguments(path, inner)
			list, blocks = append(list, args...), append(append(blocks, path), deeper...)
		default:
			list = append(list, path)
		}
	}
	return list, blocks
}

var row = regexp.MustCompile("^\\| `([a-z0-9_]+)` \\|")

// TestReferenceIsComplete: docs/agent.md has a row for each argument that a configuration can have, below a heading
// for its block, and none for anything else.
func TestReferenceIsComplete(t *testing.T) {
	text, err := os.ReadFile("../docs/agent.md")
	if err != nil {
		t.Fatal(err)
	}
	_, reference, found := strings.Cut(string(text), "\n## Configuration\n")
	if !found {
		t.Fatal("docs/agent.md has no section about the configuration")
	}
	reference, _, _ = strings.Cut(reference, "\n## ")
	var documented, headings []string
	block := ""
	for line := range strings.Lines(reference) {
		if heading, ok := strings.CutPrefix(line, "### "); ok {
			block = strings.TrimSpace(heading)
			headings = append(headings, block)
		}
		if m := row.FindStringSubmatch(line); m != nil {
			documented = append(documented, strings.TrimPrefix(block+"."+m[1], "."))
		}
	}
	args, blocks := arguments("", reflect.TypeFor[Config]())
	if len(args) < 40 || len(blocks) < 10 {
		t.Fatalf("found only %d arguments in %d blocks", len(args), len(blocks))
	}
	for _, c := range []struct {
		what      string
		is, wants []string
	}{{"argument", args, documented}, {"block", blocks, headings}} {
		for _, x := range c.is {
			if !slices.Contains(c.wants, x) {
				t.Errorf("the configuration has the %s %s, which docs/agent.md leaves out", c.what, x)
			}
		}
		for _, x := range c.wants {
			if !slices.Contains(c.is, x) {
				t.Errorf("docs/agent.md has the %s %s, which the configuration leaves out", c.what, x)
			}
		}
	}
}
