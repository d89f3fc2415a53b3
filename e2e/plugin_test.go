package e2e

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// pluginAgent starts an agent with plugins: their files in a directory, and what is configured of them.
func pluginAgent(t *testing.T, dir, plugins string) *agent {
	t.Helper()
	return startDaemon(t, fmt.Sprintf(`
server {
  enabled = true
}
client {
  enabled    = true
  drivers    = ["mock"]
  plugin_dir = %q
%s
}
%s`, dir, plugins, portsBlock(t, freePort(t))))
}

func listed(name, sum, more string) string {
	return fmt.Sprintf("  plugin %q {\n    sha256 = %q\n    %s\n  }\n", name, sum, more)
}

// pluginFile puts a program into a plugin directory and gives its checksum.
func pluginFile(t *testing.T, dir, name string, program []byte) string {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), program, 0o755); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", sha256.Sum256(program))
}

// TestPlugins: a driver that is a program of its own runs jobs when its checksum is
// listed; one with another checksum, one that crashes, speaks another protocol or never answers is
// named with what is wrong, and nothing else suffers.
func TestPlugins(t *testing.T) {
	dir := t.TempDir()
	program, err := os.ReadFile(goBuild(t, "../drivers/plugin/example"))
	if err != nil {
		t.Fatal(err)
	}
	blocks := listed("example", pluginFile(t, dir, "example", program), `config = { greeting = "hello from" }`)
	pluginFile(t, dir, "changed", program)
	blocks += listed("changed", strings.Repeat("ab", 32), "")
	blocks += listed("crash", pluginFile(t, dir, "crash", []byte("#!/bin/sh\necho the disk is on fire >&2\nexit 3\n")), "")
	blocks += listed("future", pluginFile(t, dir, "future", []byte("#!/bin/sh\necho '1|99|unix|/nowhere|grpc|'\nexec sleep 600\n")), "")
	blocks += listed("silent", pluginFile(t, dir, "silent", []byte("#!/bin/sh\nexec sleep 600\n")), "")
	pluginFile(t, dir, "unlisted", program)
	a := pluginAgent(t, dir, blocks)
	status := a.ok("node", "status", nodeName(t, a))
	for name, says := range map[string]string{
		"example": "healthy", "mock": "healthy", "changed": "does not have the sha256", "crash": "the disk is on fire", "future": "version", "silent": "timeout",
	} {
		line := ""
		for l := range strings.Lines(status) {
			if strings.HasPrefix(l, "driver "+name+" ") {
				line = l
			}
		}
		if !strings.Contains(line, says) || (says == "healthy") == strings.Contains(line, "not healthy") {
			t.Errorf("driver %s is %q, want %q in it\n%s", name, line, says, status)
		}
	}
	if strings.Contains(status, "unlisted") {
		t.Errorf("a plugin that is not listed is known:\n%s", status)
	}
	job := func(driver string) string {
		return jobspec(t, fmt.Sprintf(`
job "j" {
  count = 3
  task "t" {
    driver = %q
    config {
      say = "partition ${partition.index}"
    }
  }
}`, driver))
	}
	a.ok("job", "run", "-id", "r", job("example"))
	if out := a.ok("job", "logs", "-partition", "2", "r"); ofPartition.ReplaceAllString(out, "") != "hello from partition 2\n" {
		t.Errorf("the plugin printed %q", out)
	}
	if r := a.cli("job", "run", job("unlisted")); r.code != 2 || !strings.Contains(r.stderr, `there is no driver "unlisted"`) {
		t.Errorf("a driver that nobody has: exit %d, %s", r.code, r.stderr)
	}
	bad := jobspec(t, `
job "j" {
  count = 1
  task "t" {
    driver = "example"
    config {
      shout = "x"
    }
  }
}`)
	if r := a.cli("job", "run", bad); r.code != 3 || !strings.Contains(r.stdout+r.stderr, "shout") {
		t.Errorf("an argument that the plugin does not have: exit %d, %s%s", r.code, r.stdout, r.stderr)
	}
}

// nodeName is the one node's.
func nodeName(t *testing.T, a *agent) string {
	t.Helper()
	return strings.TrimSpace(a.ok("node", "list", "-q"))
}

// TestPluginConfiguration: what could let somebody else put programs into the agent keeps it from starting.
func TestPluginConfiguration(t *testing.T) {
	ok := strings.Repeat("ab", 32)
	open := t.TempDir()
	pluginFile(t, open, "p", []byte("#!/bin/sh\n"))
	shared := t.TempDir()
	pluginFile(t, shared, "p", []byte("#!/bin/sh\n"))
	linked := t.TempDir()
	others := t.TempDir()
	pluginFile(t, others, "p", []byte("#!/bin/sh\n"))
	plain := t.TempDir()
	for _, err := range []error{
		os.Chmod(filepath.Join(open, "p"), 0o775),
		os.Chmod(shared, 0o1777),
		os.Symlink("/bin/true", filepath.Join(linked, "p")),
		os.Chown(others, 1234, 1234),
		os.WriteFile(filepath.Join(plain, "p"), []byte("#!/bin/sh\n"), 0o644),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct{ dir, plugins, says string }{
		"file others can write":      {open, listed("p", ok, ""), "others than its owner can write to"},
		"directory others can write": {shared, listed("p", ok, ""), "others than its owner can write to"},
		"link":                       {linked, listed("p", ok, ""), "is not a program's file"},
		"somebody's directory":       {others, listed("p", ok, ""), "is not root's"},
		"not executable":             {plain, listed("p", ok, ""), "is not a program's file"},
		"not there":                  {t.TempDir(), listed("p", ok, ""), "there is no file"},
		"relative":                   {"plugins", listed("p", ok, ""), "is not absolute"},
		"shadow":                     {plain, listed("exec", ok, ""), "there is a driver of that name"},
		"twice":                      {plain, listed("p", ok, "") + listed("p", ok, ""), "it is listed twice"},
		"climbing":                   {plain, listed("../p", ok, ""), "may not hold"},
		"short sum":                  {plain, listed("p", ok[:62], ""), "64 hexadecimal digits"},
		"no sum":                     {plain, "  plugin \"p\" {\n  }\n", "sha256"},
	} {
		file := filepath.Join(t.TempDir(), "agent.hcl")
		write(t, file, fmt.Sprintf("data_dir = %q\nclient {\n  enabled = true\n  plugin_dir = %q\n%s}\n%s", t.TempDir(), c.dir, c.plugins, portsBlock(t, freePort(t))))
		r := runCLI(t, nil, "start", "-config", file)
		if r.code == 0 || !strings.Contains(r.stderr, c.says) {
			t.Errorf("%s: exit %d, %s; want %q", name, r.code, r.stderr, c.says)
		}
	}
}
