package command

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sheaf-run/agent/internal/gossip"
	"github.com/sheaf-run/agent/internal/pki"
)

// made runs a command that makes files in dir, and gives their names.
func made(t *testing.T, dir string, args ...string) []string {
	t.Helper()
	out, _, err := run(t, append(args, "-dir", dir)...)
	if err != nil {
		t.Fatalf("agent %s: %v", strings.Join(args, " "), err)
	}
	return strings.Fields(out)
}

func TestTLSFilesOfACluster(t *testing.T) {
	dir := t.TempDir()
	ca := made(t, dir, "tls", "init")
	if len(ca) != 2 || filepath.Base(ca[0]) != "ca.pem" || filepath.Base(ca[1]) != "ca-key.pem" {
		t.Fatalf("tls init made %q", ca)
	}
	for _, c := range []struct {
		args string
		want pki.Identity
		base string
	}{
		{"-server -name s1 -ip 10.0.0.1,10.0.0.2 -dns s1.example.com", pki.Identity{Role: pki.Server, Region: "global", Name: "s1"}, "global-server-s1"},
		{"-client -region eu -name c1 -days 30", pki.Identity{Role: pki.Client, Region: "eu", Name: "c1"}, "eu-client-c1"},
		{"-cli", pki.Identity{Role: pki.CLI, Region: "global", Name: "operator"}, "global-cli-operator"},
	} {
		files := made(t, dir, append([]string{"tls", "cert"}, strings.Fields(c.args)...)...)
		if len(files) != 2 || files[0] != filepath.Join(dir, c.base+".pem") || files[1] != filepath.Join(dir, c.base+"-key.pem") {
			t.Fatalf("tls cert %s made %q", c.args, files)
		}
		if info, err := os.Stat(files[1]); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s can be read by others: %v, %v", files[1], info.Mode(), err)
		}
		keys, err := pki.LoadKeys(pki.Files{CA: ca[0], Cert: files[0], Key: files[1]})
		if err != nil || keys.Identity() != c.want {
			t.Errorf("tls cert %s: %v; want %v", c.args, err, c.want)
		}
	}
	out, _, err := run(t, "tls", "show", filepath.Join(dir, "global-server-s1.pem"), "-json")
	var shown []shownCertificate
	if err != nil || json.Unmarshal([]byte(out), &shown) != nil || len(shown) != 1 {
		t.Fatalf("tls show: %s, %v", out, err)
	}
	s := shown[0]
	if s.Role != pki.Server || s.Name != "s1" || strings.Join(s.IPs, " ") != "10.0.0.1 10.0.0.2 127.0.0.1 ::1" || strings.Join(s.DNS, " ") != "server.global.sheaf s1.server.global.sheaf s1.example.com localhost" {
		t.Errorf("shown as %+v", s)
	}
	if days := time.Until(s.Until).Hours() / 24; days < 364 || days > 366 {
		t.Errorf("it lasts for %v days", days)
	}
}

func TestTLSMistakes(t *testing.T) {
	dir, empty := t.TempDir(), t.TempDir()
	made(t, dir, "tls", "init", "-days", "100")
	made(t, dir, "tls", "cert", "-client", "-name", "c1", "-days", "10")
	before, err := os.ReadFile(filepath.Join(dir, "ca-key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ args, says string }{
		{"tls init", "exists already"},
		{"tls init -days 0", "give 1 to"},
		{"tls cert -client -name c1 -days 10", "exists already"},
		{"tls cert -name x", "one of -server, -client and -cli"},
		{"tls cert -server -client -name x", "one of -server, -client and -cli"},
		{"tls cert -server -name x", "outlive its authority"},
		{"tls cert -server -name ../x -days 1", "may not hold"},
		{"tls cert -server -name x -days 1 -ip example.com", "names go to -dns"},
		{"tls cert -server -name x -days 1 -dns server.eu.sheaf", "ends in .sheaf"},
		{"tls show /nowhere", "no such file"},
		{"tls show " + filepath.Join(dir, "ca-key.pem"), "PRIVATE KEY"},
		{"tls cert -server -name x -dir " + empty, "agent tls init"},
		{"tls", "needs a command"},
		{"gossip keygen x", "takes no arguments"},
		{"operator keyring install", "takes one key"},
	} {
		args := strings.Fields(c.args)
		if len(args) > 2 && args[0] == "tls" && args[1] != "show" && !strings.Contains(c.args, "-dir") || c.args == "tls init" {
			args = append(args, "-dir", dir)
		}
		_, code, err := run(t, args...)
		if code != ExitUsage || err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("agent %s: exit %d, %v; want exit 2 and %q", c.args, code, err, c.says)
		}
	}
	after, err := os.ReadFile(filepath.Join(dir, "ca-key.pem"))
	if err != nil || string(after) != string(before) {
		t.Error("the authority's key was overwritten")
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "global-server-*")); len(left) > 0 {
		t.Errorf("refused commands left %q", left)
	}
}

func TestGossipKeygen(t *testing.T) {
	one, _, err := run(t, "gossip", "keygen")
	if err != nil {
		t.Fatal(err)
	}
	two, _, _ := run(t, "gossip", "keygen")
	key, err := gossip.ParseKey(strings.TrimSpace(one))
	if err != nil || len(key) != 32 || one == two {
		t.Errorf("keys %q and %q: %v", one, two, err)
	}
}

// A dev agent has no keys to rotate, and says so.
func TestKeyringOfADevAgent(t *testing.T) {
	startDev(t)
	_, code, err := run(t, "operator", "keyring", "list")
	if code != ExitUsage || err == nil || !strings.Contains(err.Error(), "gossip is not encrypted") {
		t.Errorf("exit %d, %v", code, err)
	}
}
