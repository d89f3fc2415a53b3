package archtest

import (
	"encoding/json"
	"errors"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const module = "github.com/sheaf-run/agent/"

// mayImport lists, for each part of the tree, the parts of ours that its
// product code may import. The longest matching prefix counts. Everything points
// downwards: what a part needs from above it defines as an interface.
var mayImport = map[string][]string{
	"sheaf":              {},
	"api":                {"sheaf"},
	"jobspec":            {"sheaf"},
	"jobspec/bacalhau":   {"sheaf", "jobspec"},
	"data/source":        {"sheaf", "data/source"},
	"data/shard":         {"sheaf"},
	"data/cache":         {"sheaf", "data/source"},
	"data/stage":         {"sheaf", "data/source", "data/shard"},
	"data/output":        {"sheaf", "data/output"},
	"data/publish":       {"sheaf", "data/source/s3", "data/source/car"},
	"drivers":            {"sheaf", "drivers/driverpb"},
	"drivers/driverpb":   {},
	"drivers/plugin":     {"sheaf", "drivers", "drivers/driverpb"},
	"drivers/drivertest": {"sheaf", "drivers", "drivers/driverpb", "drivers/plugin"},
	"drivers/cgroup":     {"sheaf"},
	"drivers/mount":      {"drivers/driverpb"},
	"drivers/supervisor": {},
	"drivers/mock":       {"sheaf", "drivers", "drivers/driverpb"},
	"drivers/exec":       {"sheaf", "drivers", "drivers/driverpb", "drivers/cgroup", "drivers/mount"},
	"drivers/wasm":       {"sheaf", "drivers", "drivers/driverpb", "drivers/cgroup"},
	"drivers/containerd": {"sheaf", "drivers", "drivers/driverpb", "drivers/cgroup", "drivers/mount", "drivers/supervisor"},
	"drivers/builtin":    {"sheaf", "drivers"},
	"server":             {"sheaf", "server", "internal"},
	"server/match":       {"sheaf"},
	"server/scheduler":   {"sheaf", "server/match"},
	"server/straggler":   {"sheaf"},
	"server/blame":       {"sheaf"},
	"server/state":       {"sheaf", "server/state", "internal/wire"},
	"server/reuse":       {"sheaf", "data/shard", "server/state"},
	"server/provenance":  {"sheaf", "data/shard", "server/state"},
	"server/conflict":    {"sheaf"},
	"server/fsm":         {"sheaf", "server/match", "server/state", "server/fsm", "internal/wire"},
	"server/simtest":     {"sheaf", "server", "internal", "data/publish"},
	"client":             {"sheaf", "client", "data", "drivers", "internal"},
	"agent":              {"sheaf", "agent", "server", "client", "jobspec", "data/source", "drivers/builtin", "internal", "api"},
	"command":            {"sheaf", "api", "jobspec", "command", "data/output/result", "data/source/car", "drivers/builtin", "agent", "internal"},
	"ui":                 {},
	"internal":           {"sheaf", "internal"},
}

type listed struct {
	ImportPath string
	Imports    []string
}

func packages(t *testing.T) []listed {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", module+"...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []listed
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

// within reports whether the package path lies in the part.
func within(path, part string) bool { return path == part || strings.HasPrefix(path, part+"/") }

// partOf is the longest part of mayImport that holds the path.
func partOf(path string) (string, bool) {
	best, found := "", false
	for part := range mayImport {
		if within(path, part) && len(part) >= len(best) {
			best, found = part, true
		}
	}
	return best, found
}

func TestImportsPointDownwards(t *testing.T) {
	seen := 0
	for _, p := range packages(t) {
		from := strings.TrimPrefix(p.ImportPath, module)
		if p.ImportPath+"/" == module || from == "main" || within(from, "e2e") || within(from, "internal/archtest") {
			continue
		}
		part, ok := partOf(from)
		if !ok {
			t.Errorf("%s lies in no known part of the tree: add it to the layout in ARCHITECTURE.md and here", from)
			continue
		}
		seen++
		for _, imp := range p.Imports {
			to, ours := strings.CutPrefix(imp, module)
			if !ours || within(to, part) && part != "drivers" {
				continue
			}
			allowed := false
			for _, a := range mayImport[part] {
				allowed = allowed || within(to, a)
			}
			if !allowed {
				t.Errorf("%s imports %s: %s may import only %v", from, to, part, mayImport[part])
			}
		}
	}
	if seen < 5 {
		t.Fatalf("saw only %d packages: the test looks at the wrong tree", seen)
	}
}

// TestOneFileStartsAgents: the command line reaches agents through the API; one
// file starts them.
func TestOneFileStartsAgents(t *testing.T) {
	root, files := tracked(t)
	found := 0
	for _, f := range files {
		if !strings.HasPrefix(f, "command/") || !strings.HasSuffix(f, ".go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, f), nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, imp := range parsed.Imports {
			if imp.Path.Value != `"`+module+`agent"` {
				continue
			}
			found++
			if f != "command/start.go" {
				t.Errorf("%s imports the agent: only command/start.go starts one", f)
			}
		}
	}
	if found == 0 {
		t.Error("no file starts an agent: the test looks at the wrong place")
	}
}

// TestPureParts fails when a part that must be testable without a machine
// reaches for one.
func TestPureParts(t *testing.T) {
	forbidden := []string{"net", "net/http", "os", "os/exec", "math/rand", "math/rand/v2", "google.golang.org/grpc"}
	for _, p := range packages(t) {
		from := strings.TrimPrefix(p.ImportPath, module)
		if from != "sheaf" && from != "data/shard" && from != "server/match" && from != "server/scheduler" && from != "server/straggler" && from != "server/blame" && from != "server/fsm" && from != "server/dispatch" {
			continue
		}
		for _, imp := range p.Imports {
			for _, f := range forbidden {
				if imp == f {
					t.Errorf("%s is pure and may not import %s", from, f)
				}
			}
		}
	}
}
