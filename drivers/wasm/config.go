package wasm

import (
	"fmt"
	"net/url"
	"path"
	"path/filepath"
	"strings"

	"github.com/sheaf-run/agent/drivers"
	"github.com/sheaf-run/agent/sheaf"
)

// taskConfig is the config block of a task, as Schema has it.
type taskConfig struct {
	Module string   `json:"module"`
	Args   []string `json:"args"`
}

func parseConfig(raw []byte) (taskConfig, error) {
	var c taskConfig
	if err := drivers.DecodeConfig(Name, raw, &c); err != nil {
		return c, err
	}
	if c.Module == "" {
		return c, &sheaf.Error{Class: sheaf.Invalid, Field: "config.module", Msg: "no module is named", Hint: `write module = "program.wasm"`}
	}
	return c, nil
}

// argv is what the guest sees as its arguments: the module's file name, then
// the configured ones.
func (c taskConfig) argv() []string {
	name := c.Module
	if p, err := modulePath(name); err == nil {
		name = p
	} else if u, err := url.Parse(name); err == nil {
		name = u.Path // of one that the node has fetched
	}
	return append([]string{path.Base(name)}, c.Args...)
}

// modulePath is the path of a module on this node. Its location must be the
// same for all partitions of a run.
func modulePath(location string) (string, error) {
	refs, err := sheaf.TemplateReferences(location)
	if err != nil {
		return "", fmt.Errorf("read the module's location: %w", err)
	}
	if len(refs) > 0 {
		return "", &sheaf.Error{
			Class: sheaf.Invalid, Field: "config.module",
			Msg:  fmt.Sprintf("the module's location refers to ${%s}, but one module serves the whole run", refs[0]),
			Hint: "pass what differs between partitions in args or env",
		}
	}
	location, _ = sheaf.Expand(location, nil)
	if filepath.IsAbs(location) {
		return filepath.Clean(location), nil
	}
	u, err := url.Parse(location)
	switch {
	case err != nil:
		return "", &sheaf.Error{
			Class: sheaf.Invalid, Field: "config.module", Msg: fmt.Sprintf("%q is no URL", location), Err: err,
			Hint: "give an absolute path, or write a literal % as %25",
		}
	case u.Scheme == "":
		return "", &sheaf.Error{
			Class: sheaf.Invalid, Field: "config.module", Msg: fmt.Sprintf("the module's path %q is not absolute", location),
			Hint: "give an absolute path or a file:// URL",
		}
	case !strings.EqualFold(u.Scheme, "file"):
		return "", &sheaf.Error{
			Class: sheaf.Unsupported, Field: "config.module",
			Msg:  fmt.Sprintf("modules cannot come from %s://", u.Scheme),
			Hint: "name one by file://, https://, s3://, ipfs:// or car://",
		}
	case u.Host != "" && u.Host != "localhost", !path.IsAbs(u.Path):
		return "", &sheaf.Error{
			Class: sheaf.Invalid, Field: "config.module", Msg: fmt.Sprintf("%q names no file on this node", location),
			Hint: "a file URL has three slashes: file:///path/program.wasm",
		}
	}
	return path.Clean(u.Path), nil
}
