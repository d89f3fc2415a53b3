package agent

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/sheaf-run/agent/client"
	"github.com/sheaf-run/agent/drivers/builtin"
	"github.com/sheaf-run/agent/sheaf"
)

// PluginConfig lists a driver that is a program of its own: the file of that name in the
// plugin directory. What is not listed is never run.
type PluginConfig struct {
	Name   string            `hcl:"name,label"`
	SHA256 string            `hcl:"sha256"`                        // of the file, in hexadecimal; checked at every start
	Config map[string]string `hcl:"config,optional" show:"hidden"` // what the plugin is told; see plugin.Options
}

func wrongPlugin(name, msg, hint string) error {
	return &sheaf.Error{Class: sheaf.Invalid, Field: "client.plugin." + name, Msg: fmt.Sprintf("plugin %q: %s", name, msg), Hint: hint}
}

// sum is the checksum as bytes.
func (p PluginConfig) sum() ([]byte, error) {
	b, err := hex.DecodeString(p.SHA256)
	if err != nil || len(b) != 32 {
		return nil, wrongPlugin(p.Name, "sha256 is not 64 hexadecimal digits", "write what sha256sum prints of the file")
	}
	return b, nil
}

// checkPlugins checks what the configuration says of plugins, and not yet what the disk does.
func (c *ClientConfig) checkPlugins() error {
	if len(c.Plugins) > 0 && !filepath.IsAbs(c.PluginDir) {
		return &sheaf.Error{Class: sheaf.Invalid, Field: "client.plugin_dir", Msg: fmt.Sprintf("plugin_dir %q is not absolute", c.PluginDir), Hint: "write the whole path, as in /usr/lib/sheaf/plugins"}
	}
	seen := map[string]bool{}
	for _, p := range c.Plugins {
		if err := sheaf.CheckName("client.plugin", p.Name); err != nil {
			return err
		}
		if slices.Contains(builtin.Names(), p.Name) {
			return wrongPlugin(p.Name, "there is a driver of that name in the agent", "give the plugin another name; the agent's own are "+strings.Join(builtin.Names(), ", "))
		}
		if seen[p.Name] {
			return wrongPlugin(p.Name, "it is listed twice", "keep one of the blocks")
		}
		seen[p.Name] = true
		if _, err := p.sum(); err != nil {
			return err
		}
	}
	return nil
}

// plugins are the drivers of the plugin directory. That and all above it must be root's, or
// the agent's user's, and nobody else's to write: who may change a plugin is the agent.
func (c *ClientConfig) plugins() ([]client.Driver, error) {
	var list []client.Driver
	for _, p := range c.Plugins {
		path := filepath.Join(c.PluginDir, p.Name)
		if err := trusted(path); err != nil {
			return nil, wrongPlugin(p.Name, err.Error(), "give the directory and the file to root, writable by root alone: chown root, chmod go-w")
		}
		sum, err := p.sum()
		if err != nil {
			return nil, err
		}
		list = append(list, client.Driver{Name: p.Name, Command: []string{path}, Checksum: sum, Options: p.Config})
	}
	return list, nil
}

// trusted reports what is wrong with a program's file, or with a directory above it.
func trusted(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("there is no file %s", path)
	}
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() || info.Mode().Perm()&0o111 == 0 {
		return fmt.Errorf("%s is not a program's file", path)
	}
	for at := path; ; at = filepath.Dir(at) {
		info, err := os.Lstat(at)
		if err != nil {
			return err
		}
		if at != path && !info.IsDir() {
			return fmt.Errorf("%s is not a directory", at)
		}
		owner, ok := info.Sys().(*syscall.Stat_t)
		if !ok || owner.Uid != 0 && int(owner.Uid) != os.Geteuid() {
			return fmt.Errorf("%s is not root's", at)
		}
		// In a sticky directory, as /tmp is, nobody can replace what is another's; the plugin directory itself
		// is not shared even so.
		shared := info.Mode().Perm()&0o022 != 0
		if shared && (info.Mode()&fs.ModeSticky == 0 || at == filepath.Dir(path) || at == path) {
			return fmt.Errorf("others than its owner can write to %s", at)
		}
		if at == "/" {
			return nil
		}
	}
}

// schemas are the drivers that jobs may name: the agent's own, and those that nodes of the
// cluster have beside them, of which the arguments are not known here.
func (a *Agent) schemas() map[string]sheaf.ConfigSchema {
	all := maps.Clone(builtin.Schemas())
	if a.server == nil {
		return all
	}
	for n := range a.server.Snapshot().Nodes() {
		for _, d := range n.Drivers {
			if _, known := all[d.Name]; !known {
				all[d.Name] = sheaf.ConfigSchema{Driver: d.Name, Open: true}
			}
		}
	}
	return all
}
