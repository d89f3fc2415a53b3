package operations

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// block is a fenced block of a page.
type block struct {
	page    string // its file's name
	section string // the heading that it stands under
	line    int    // in the file
	kind    string // what the fence says that it is
	file    string // what the paragraph before calls it, as in "this is `words.hcl`"
	text    string
}

// pages are all documents for those who use the agent or change it.
func pages(t testing.TB) (files []string) {
	t.Helper()
	for _, pattern := range []string{"../../*.md", "../../docs/*.md"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, found...)
	}
	if len(files) < 15 {
		t.Fatalf("only %v are found", files)
	}
	return files
}

// kinds are what a block may be. All but text are run, so what can be run must not call itself that.
var kinds = []string{"sh", "hcl", "json", "yaml", "text"}

var (
	called  = regexp.MustCompile("`([a-z0-9-]+\\.(?:hcl|json|yaml))`")
	command = regexp.MustCompile(`(?m)^\s*[$#>]?\s*(agent|make|go|curl|git|apt|systemctl|sudo|export) `)
)

// readPage gives a page's blocks in order, and its headings.
func readPage(t testing.TB, file string) (blocks []block, headings []string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	blocks, headings, faults := parsePage(file, string(text))
	if len(faults) > 0 {
		t.Fatal(strings.Join(faults, "\n"))
	}
	return blocks, headings
}

// parsePage reads a page, and says of what a reader would take for an example that it is none.
func parsePage(file, text string) (blocks []block, headings, faults []string) {
	fault := func(line int, what string) { faults = append(faults, fmt.Sprintf("%s:%d: %s", file, line, what)) }
	var open *block
	section, paragraph, before := "", "", ""
	for i, line := range strings.Split(text, "\n") {
		fence, isFence := strings.CutPrefix(line, "```")
		switch {
		case open != nil && isFence:
			blocks, open, paragraph = append(blocks, *open), nil, ""
		case open != nil:
			open.text += line + "\n"
		case isFence:
			open = &block{page: filepath.Base(file), section: section, line: i + 1, kind: fence}
			if names := called.FindAllStringSubmatch(paragraph, -1); names != nil {
				open.file = names[len(names)-1][1]
			}
			if !slices.Contains(kinds, fence) {
				fault(i+1, fmt.Sprintf("a block is called %q, and must be one of %q", fence, kinds))
			}
		case strings.HasPrefix(line, "#"):
			section = strings.TrimSpace(strings.TrimLeft(line, "#"))
			headings = append(headings, section)
		case strings.HasPrefix(strings.TrimSpace(line), "```"), before == "" && strings.HasPrefix(line, "    "):
			fault(i+1, "write a block between fences at the beginning of lines, with its kind")
		case line != "" && before == "" && i > 0:
			paragraph = line
		default:
			paragraph += " " + line
		}
		before = line
	}
	if open != nil {
		fault(open.line, "the block does not end")
	}
	for _, b := range blocks {
		if b.kind == "text" && command.MatchString(b.text) {
			fault(b.line, "this is no text but commands")
		}
	}
	return blocks, headings, faults
}

// TestNoExampleHides: what looks like an example is one that is run, or the page is at fault.
func TestNoExampleHides(t *testing.T) {
	for text, fault := range map[string]string{
		"# A\n\nThis is `a.hcl`:\n\n```hcl\na = 1\n```\n": "",
		"Say:\n\n```\nagent dev\n```\n":                   `is called ""`,
		"Say:\n\n```console\nagent dev\n```\n":            `is called "console"`,
		"Say:\n\n```text\n$ agent dev\n```\n":             "commands",
		"Say:\n\n```text\nmake test\n```\n":               "commands",
		"Say:\n\n    agent dev\n":                         "between fences",
		"- Say:\n\n  ```sh\n  agent dev\n  ```\n":         "between fences",
		"Say:\n\n```sh\nagent dev\n":                      "does not end",
	} {
		blocks, headings, faults := parsePage("a.md", text)
		if got := strings.Join(faults, "\n"); fault == "" && got != "" || !strings.Contains(got, fault) {
			t.Errorf("of the page\n%s\nthe faults are %q, want %q", text, got, fault)
		}
		if fault == "" && (len(blocks) != 1 || blocks[0] != (block{"a.md", "A", 5, "hcl", "a.hcl", "a = 1\n"}) || len(headings) != 1) {
			t.Errorf("the page is read as %+v", blocks)
		}
	}
}
