package agent

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sheaf-run/agent/sheaf"
)

func load(t *testing.T, files ...string) (Config, error) {
	t.Helper()
	dir := t.TempDir()
	for i, text := range files {
		if err := os.WriteFile(filepath.Join(dir, string(rune('a'+i))+".hcl"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return LoadConfig([]string{dir})
}

func TestLaterFilesAreLaidOver(t *testing.T) {
	got, err := load(t, "name = \"one\"\nregion = \"r\"\njoin = [\"a:1\"]\nclient {\n enabled = true\n file_root \"/a\" {}\n}\n", "name = \"two\"\njoin = [\"b:1\"]\nports {\n http = 7000\n}\nclient {\n enabled = true\n file_root \"/b\" {}\n}\n")
	if err != nil {
		t.Fatal(err)
	}
	if got.Name != "two" || got.Region != "r" || strings.Join(got.Join, " ") != "a:1 b:1" || len(got.Client.FileRoots) != 2 {
		t.Errorf("got %+v", got)
	}
	if *got.Ports != (Ports{HTTP: 7000, RPC: DefaultRPCPort, Gossip: DefaultGossipPort}) {
		t.Errorf("ports left out are %+v", *got.Ports)
	}
}

func TestConfigMistakes(t *testing.T) {
	for text, says := range map[string]string{
		"nope = 1": "a.hcl:1",
		"name = ":  "a.hcl:1",
		"name = \"../x\"\nserver {\n enabled = true\n}": "name",
		"server {\n}": "no role",
		"bind = \"0.0.0.0\"\nserver {\n enabled = true\n}":                  "-insecure",
		"bind = \"here\"\nserver {\n enabled = true\n}":                     "IP address",
		"server {\n enabled = true\n retention {\n runs = -1\n }\n}":        "retention.runs",
		"server {\n enabled = true\n retention {\n age = \"soon\"\n }\n}":   "retention.age",
		"client {\n enabled = true\n gc {\n disk_usage = 101\n }\n}":        "gc.disk_usage",
		"client {\n enabled = true\n gc {\n interval = \"1\"\n }\n}":        "gc.interval",
		"client {\n enabled = true\n containerd {\n images = \"1s\"\n }\n}": "containerd.images",
		"client {\n enabled = true\n drivers = [\"x\"]\n}":                  "known: ",
		"client {\n enabled = true\n file_root \"x\" {}\n}":                 "not absolute",
	} {
		conf, err := load(t, text)
		if err == nil {
			_, err = conf.Filled()
		}
		var said string
		if err != nil {
			said = err.Error()
			var e *sheaf.Error
			if errors.As(err, &e) {
				said += e.Field + e.Hint
			}
		}
		if !strings.Contains(strings.ReplaceAll(said, "a.hcl line ", "a.hcl:"), says) {
			t.Errorf("%q: %v; want %q", text, err, says)
		}
	}
}
