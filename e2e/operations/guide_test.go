package operations

import (
	"slices"
	"strings"
	"testing"
)

// guideFile is what TestGuide goes through.
const guideFile = "../../docs/operations.md"

// task is commands of the guide.
type task struct {
	block
	where string // as in "every server"
}

// readGuide gives the guide's commands in order, and its headings.
func readGuide(t testing.TB) (tasks []task, headings []string) {
	t.Helper()
	blocks, headings := readPage(t, guideFile)
	for _, b := range blocks {
		first, _, _ := strings.Cut(b.text, "\n")
		where, ok := strings.CutPrefix(first, "# on ")
		if b.kind != "sh" || !ok {
			t.Fatalf("%s:%d: these are no commands that begin with `# on …`, which says where they belong", guideFile, b.line)
		}
		tasks = append(tasks, task{block: b, where: where})
	}
	if len(tasks) == 0 {
		t.Fatalf("%s holds no commands", guideFile)
	}
	return tasks, headings
}

// desk is the reader's own machine.
const desk = "desk"

// machines are those that the commands are for. Which servers and clients there are at present is what the
// reader has written down.
func (k task) machines(s *site) (names []string) {
	s.t.Helper()
	role, every := strings.CutPrefix(k.where, "every ")
	switch {
	case k.where == "your own machine":
		return []string{desk}
	case every && (role == "server" || role == "client"):
		for line := range strings.Lines(s.read(desk + "/root/cluster/machines")) {
			if f := strings.Fields(line); f[0] == role {
				names = append(names, f[1])
			}
		}
	case !every:
		names = strings.Split(k.where, " and ")
	}
	if len(names) == 0 {
		s.t.Fatalf("%s:%d: nobody knows where `# on %s` is", guideFile, k.line, k.where)
	}
	if i := slices.IndexFunc(names, func(n string) bool { return !exists(s.path(n)) }); i >= 0 {
		s.t.Fatalf("%s:%d: there is no machine %q", guideFile, k.line, names[i])
	}
	return names
}

// do runs the commands where they belong.
func (k task) do(s *site) {
	s.t.Helper()
	for _, name := range k.machines(s) {
		out, err := s.try(name, k.text)
		if err != nil {
			s.t.Fatalf("%s:%d, %q, on %s: %v\n%s\n--- printed\n%s", guideFile, k.line, k.section, name, err, k.text, out)
		}
		s.t.Logf("%s:%d on %s\n%s", guideFile, k.line, name, strings.TrimSpace(out))
	}
}
