// Agent is Sheaf's one binary: server, client, command line and task drivers.
package main

import (
	"os"

	"github.com/sheaf-run/agent/command"
	"github.com/sheaf-run/agent/drivers/builtin"
	"github.com/sheaf-run/agent/jobspec"
)

// version is set by the linker.
var version = "dev"

func main() {
	if jobspec.IsChild(os.Args) {
		os.Exit(jobspec.ChildMain(os.Args, os.Stdin, os.Stdout))
	}
	if handled, code := builtin.PluginMain(os.Args[1:]); handled {
		os.Exit(code)
	}
	os.Exit(command.Main(version, os.Args[1:]))
}
