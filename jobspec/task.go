package jobspec

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/sheaf-run/agent/sheaf"
)

// task reads a task block.
func (b *block) task(t *sheaf.Task) {
	t.Name = b.label
	b.text("driver", &t.Driver)
	b.one("config", 0, func(in *block) { in.config(t.Driver, &t.Config) })
	b.templateMap("env", &t.Env)
	b.each("secret", "secrets", 1, func(in *block) { t.Secrets = append(t.Secrets, in.secret()) })
	b.duration("timeout", &t.Timeout)
	b.text("kill_signal", &t.KillSignal)
	b.duration("kill_timeout", &t.KillTimeout)
	b.text("network", &t.Network)
	b.one("resources", 0, func(in *block) { in.resources(&t.Resources) })
	b.end()
}

// killSignals are those that a program can be asked to end with.
var killSignals = []string{"SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP", "SIGKILL", "SIGABRT", "SIGALRM", "SIGUSR1", "SIGUSR2", "SIGWINCH"}

func (c *checker) task(path string, t *sheaf.Task) {
	if t.Name == "" && t.Driver == "" {
		c.bad(path, "there is no task", "", `write task "NAME" { … } with a driver and its config`)
		return
	}
	c.name(path+".name", "task", t.Name)
	if t.Driver == "" {
		c.bad(path+".driver", "driver is missing", "", didYouMean("", slices.Collect(maps.Keys(c.drivers))))
	}
	c.config(path+".config", t.Driver, t.Config)
	c.env(path+".env", t.Env)
	c.secrets(path+".secrets", t)
	c.timeout(path+".timeout", t.Timeout)
	c.oneOf(path+".kill_signal", "kill_signal", t.KillSignal, killSignals...)
	c.duration(path+".kill_timeout", "kill_timeout", t.KillTimeout, minKillTimeout, MaxDelay)
	c.oneOf(path+".network", "network", t.Network, sheaf.NetworkNone, sheaf.NetworkHost, sheaf.NetworkBridge)
	c.resources(path+".resources", &t.Resources)
}

// reserved are the variables that every task is given.
var reserved = []string{
	"SHEAF_PARTITION_INDEX", "SHEAF_PARTITION_COUNT", "SHEAF_JOB_ID", "SHEAF_JOB_NAME", "SHEAF_JOB_TYPE", "SHEAF_NAMESPACE", "SHEAF_REGION",
	"SHEAF_EXECUTION_ID", "SHEAF_ATTEMPT", "SHEAF_NODE_ID", "SHEAF_NODE_NAME", "SHEAF_DATACENTER", "SHEAF_SHARD_FILE",
}

func (c *checker) env(path string, env map[string]string) {
	for _, key := range slices.Sorted(maps.Keys(env)) {
		at := path + "." + key
		if key == "" {
			at = path
		}
		c.envName(at, key)
		c.template(path+"."+key, env[key])
	}
}

// envName checks the name of a variable that a task is to get.
func (c *checker) envName(at, name string) {
	switch {
	case name == "":
		c.bad(at, "a name of env is empty", "", "give it a name")
	case strings.ContainsFunc(name, func(r rune) bool { return r == '=' || r < 0x21 || r == 0x7f }):
		c.bad(at, fmt.Sprintf("env name %s holds a space, an = or a control character", quoted(name)), "", "write letters, digits and _")
	case isTaskVariable(name):
		c.bad(at, fmt.Sprintf("env name %s is one that every task is given", quoted(name)), "", "take another name")
	}
}

func (w *writer) task(t *sheaf.Task) {
	w.open("task", t.Name)
	w.text("driver", t.Driver, "")
	if len(t.Config) > 0 {
		w.open("config", "")
		for _, name := range slices.Sorted(maps.Keys(t.Config)) {
			w.arg(name, w.any(t.Config[name]))
		}
		w.close()
	}
	w.textMap("env", t.Env, quoteTemplate)
	for _, x := range t.Secrets {
		w.secret(x)
	}
	w.duration("timeout", t.Timeout, 0)
	w.text("kill_signal", t.KillSignal, defaultKillSignal)
	w.duration("kill_timeout", t.KillTimeout, defaultKillTimeout)
	w.text("network", t.Network, sheaf.NetworkNone)
	w.resources(t.Resources)
	w.close()
}
