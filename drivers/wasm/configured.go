package wasm

import (
	"slices"
	"strings"

	"github.com/tetratelabs/wazero"
)

// configured is wazero's form of the arguments and variables of the last execution. wazero copies
// them all for each that is set, and the next execution has most of them too: as a rule it is the same
// run's next partition.
type configured struct {
	args, env []string
	kept      bool // the next may begin with it
	config    wazero.ModuleConfig
}

// become makes it that of r, as if made from base.
func (c *configured) become(base wazero.ModuleConfig, r *run) wazero.ModuleConfig {
	anew := !c.kept || !slices.Equal(c.args, r.args) || !slices.EqualFunc(c.env, r.env, sameName)
	if anew {
		c.config, c.kept = base.WithArgs(r.args...), true
	}
	names := map[string]bool{}
	for i, v := range r.env {
		name, value, ok := strings.Cut(v, "=")
		if !ok || !anew && c.env[i] == v {
			continue
		}
		if anew {
			c.kept = c.kept && !names[name] // of two values the last counts, whichever is new
			names[name] = true
		}
		c.config = c.config.WithEnv(name, value)
	}
	c.args, c.env = r.args, r.env
	return c.config
}

func sameName(a, b string) bool {
	x, _, xOK := strings.Cut(a, "=")
	y, _, yOK := strings.Cut(b, "=")
	return x == y && xOK == yOK
}
