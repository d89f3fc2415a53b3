package e2e

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// contents are the bytes of all files below a directory, by path, but for locks, whose content means nothing.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		all[path] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func same(a, b map[string]string) (diff string) {
	for path := range b {
		if _, ok := a[path]; !ok {
			diff += path + " is new\n"
		}
	}
	for path, text := range a {
		if now, ok := b[path]; !ok {
			diff += path + " is gone\n"
		} else if now != text {
			diff += path + " has changed\n"
		}
	}
	return diff
}

// TestDataDirectories: a data directory that is not this agent's, or cannot be one, is
// refused with the reason, and nothing in it is touched.
func TestDataDirectories(t *testing.T) {
	daemon := func(region, roles string) string {
		return fmt.Sprintf("region = %q\n%s%s", region, portsBlock(t, freePort(t)), roles)
	}
	const server, client = "server {\n enabled = true\n }\n", "client {\n enabled = true\n drivers = [\"mock\"]\n }\n"
	try := func(dir, config string) ran {
		file := filepath.Join(t.TempDir(), "agent.hcl")
		write(t, file, fmt.Sprintf("data_dir = %q\n%s", dir, config))
		return runCLI(t, nil, "start", "-config", file)
	}
	a := startDaemon(t, daemon("here", server+client))
	if r := try(a.dataDir, daemon("here", server)); r.code == 0 || !strings.Contains(r.stderr, "in use by another agent") {
		t.Errorf("in use, by a server: exit %d, %s", r.code, r.stderr)
	}
	if r := try(a.dataDir, daemon("here", client)); r.code == 0 || !strings.Contains(r.stderr, "another process uses") {
		t.Errorf("in use, by a client: exit %d, %s", r.code, r.stderr)
	}
	a.stop()

	before := contents(t, a.dataDir)
	if r := try(a.dataDir, daemon("elsewhere", server)); r.code == 0 || !strings.Contains(r.stderr, `belongs to region "here"`) {
		t.Errorf("of another region: exit %d, %s", r.code, r.stderr)
	}
	if diff := same(before, contents(t, a.dataDir)); diff != "" {
		t.Errorf("of another region: touched:\n%s", diff)
	}

	identity := filepath.Join(a.dataDir, "server", "raft", "identity.json")
	text, err := os.ReadFile(identity)
	if err != nil {
		t.Fatal(err)
	}
	newer := regexp.MustCompile(`"format":\d+`).ReplaceAll(text, []byte(`"format":99`))
	if bytes.Equal(newer, text) {
		t.Fatalf("%s has no format: %s", identity, text)
	}
	if err := os.WriteFile(identity, newer, 0o600); err != nil {
		t.Fatal(err)
	}
	before = contents(t, a.dataDir)
	if r := try(a.dataDir, daemon("here", server)); r.code == 0 || !strings.Contains(r.stderr, "written by a newer version") {
		t.Errorf("of a newer version: exit %d, %s", r.code, r.stderr)
	}
	if diff := same(before, contents(t, a.dataDir)); diff != "" {
		t.Errorf("of a newer version: touched:\n%s", diff)
	}

	// The client of the first cluster is started beside the server of a second one.
	gossip := freePort(t)
	startDaemon(t, "name = \"second\"\nregion = \"here\"\n"+portsBlock(t, gossip)+server)
	before = contents(t, a.dataDir)
	if r := try(a.dataDir, fmt.Sprintf("join = [\"127.0.0.1:%s\"]\n%s", gossip, daemon("here", client))); r.code != 1 || !strings.Contains(r.stderr, "the node belongs to cluster") {
		t.Errorf("of another cluster, by a client: exit %d, %s", r.code, r.stderr)
	}
	if diff := same(before, contents(t, a.dataDir)); diff != "" {
		t.Errorf("of another cluster: touched:\n%s", diff)
	}

	file := filepath.Join(t.TempDir(), "file")
	write(t, file, "precious")
	for what, dir := range map[string]string{"a file": file, "below a file": filepath.Join(file, "x"), "where nothing can be made": "/proc/sheaf"} {
		for _, role := range []string{server, client} {
			if r := try(dir, daemon("here", role)); r.code == 0 || r.code == 124 || !strings.Contains(r.stderr, "data directory") || !strings.Contains(r.stderr, dir) {
				t.Errorf("%s as data directory of a %.6s: exit %d, %s", what, role, r.code, r.stderr)
			}
		}
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "precious" {
		t.Errorf("the file is %q, %v", b, err)
	}
}
