package operations

import (
	"os"
	"strings"
	"testing"
)

// guideFile is what the test goes through.
const guideFile = "../../docs/operations.md"

// block is commands of the guide.
type block struct {
	section  string // the heading that they stand under
	line     int    // in the file
	where    string // as in "every server"
	commands string
}

// readGuide gives the guide's commands in order, and its headings.
func readGuide(t testing.TB) (blocks []block, headings map[string]bool) {
	t.Helper()
	text, err := os.ReadFile(guideFile)
	if err != nil {
		t.Fatal(err)
	}
	headings = map[string]bool{}
	section, begun := "", 0
	var lines []string
	for i, line := range strings.Split(string(text), "\n") {
		switch {
		case begun > 0 && line == "```":
			b := block{section: section, line: begun, commands: strings.Join(lines, "\n")}
			where, ok := strings.CutPrefix(lines[0], "# on ")
			if !ok {
				t.Fatalf("%s:%d: the commands do not begin with `# on …`, which says where they belong", guideFile, begun)
			}
			b.where = where
			blocks = append(blocks, b)
			begun, lines = 0, nil
		case begun > 0:
			lines = append(lines, line)
		case line == "```sh":
			begun = i + 1
		case strings.HasPrefix(line, "#"):
			section = strings.TrimSpace(strings.TrimLeft(line, "#"))
			headings[section] = true
		}
	}
	if len(blocks) == 0 || begun > 0 {
		t.Fatalf("%s holds %d blocks of commands, and one that does not end: %v", guideFile, len(blocks), begun > 0)
	}
	return blocks, headings
}

// desk is the reader's own machine.
const desk = "desk"

// machines are those that the block is for. Which servers and clients there are at present is what the
// reader has written down.
func (b block) machines(s *site) (names []string) {
	s.t.Helper()
	role, every := strings.CutPrefix(b.where, "every ")
	switch {
	case b.where == "your own machine":
		return []string{desk}
	case every && (role == "server" || role == "client"):
		for line := range strings.Lines(s.read(desk + "/root/cluster/machines")) {
			if f := strings.Fields(line); f[0] == role {
				names = append(names, f[1])
			}
		}
	case !every:
		names = strings.Split(b.where, " and ")
	}
	if len(names) == 0 {
		s.t.Fatalf("%s:%d: nobody knows where `# on %s` is", guideFile, b.line, b.where)
	}
	for _, n := range names {
		if !exists(s.path(n)) {
			s.t.Fatalf("%s:%d: there is no machine %q", guideFile, b.line, n)
		}
	}
	return names
}

// do runs the block where it belongs.
func (b block) do(s *site) {
	s.t.Helper()
	for _, name := range b.machines(s) {
		out, err := s.try(name, b.commands)
		if err != nil {
			s.t.Fatalf("%s:%d, %q, on %s: %v\n%s\n--- printed\n%s", guideFile, b.line, b.section, name, err, b.commands, out)
		}
		s.t.Logf("%s:%d on %s\n%s", guideFile, b.line, name, strings.TrimSpace(out))
	}
}
