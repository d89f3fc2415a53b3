// Package builtin names the drivers that are part of the binary: the only place
// that does. The agent takes their schemas from here and starts each as a plugin process
// of the binary itself, by "agent plugin NAME".
package builtin

import (
	"fmt"
	"io"
	"os"
	"sort"
	"strings"

	"github.com/sheaf-run/agent/drivers"
	"github.com/sheaf-run/agent/drivers/containerd"
	"github.com/sheaf-run/agent/drivers/exec"
	"github.com/sheaf-run/agent/drivers/mock"
	"github.com/sheaf-run/agent/drivers/plugin"
	"github.com/sheaf-run/agent/drivers/supervisor"
	"github.com/sheaf-run/agent/drivers/wasm"
	"github.com/sheaf-run/agent/sheaf"
)

// entry is a driver of the binary. New must start nothing: a driver is also
// made in the agent's own process, to ask for its fingerprint.
type entry struct {
	schema sheaf.ConfigSchema
	new    func() drivers.Driver
}

var entries = map[string]entry{
	"containerd": {containerd.Schema, func() drivers.Driver { return containerd.New() }},
	"exec":       {exec.Schema, func() drivers.Driver { return exec.New() }},
	"mock":       {mock.Schema, func() drivers.Driver { return mock.New() }},
	"wasm":       {wasm.Schema, func() drivers.Driver { return wasm.New(wasm.Options{}) }},
}

// Processes that drivers start, of the binary itself.
const (
	wasmWorker     = "wasm-worker" // runs guests
	keptSupervisor = "supervisor"  // process 1 of a kept container
)

// Names are the names of all drivers, sorted.
func Names() []string {
	names := make([]string, 0, len(entries))
	for name := range entries {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

// Schemas are the config schemas by driver name.
func Schemas() map[string]sheaf.ConfigSchema {
	m := make(map[string]sheaf.ConfigSchema, len(entries))
	for name, e := range entries {
		m[name] = e.schema
	}
	return m
}

// New makes a driver in this process; it starts nothing before it is used. An
// unknown name is an error of class sheaf.Invalid that lists the known.
func New(name string) (drivers.Driver, error) {
	e, ok := entries[name]
	if !ok {
		return nil, &sheaf.Error{
			Class: sheaf.Invalid, Field: "driver",
			Msg:  fmt.Sprintf("unknown driver %q", name),
			Hint: "drivers are " + strings.Join(Names(), ", "),
		}
	}
	return e.new(), nil
}

// PluginMain runs this process as a driver's plugin when args, those of the
// command line without the program's name, are "plugin NAME". It is called first thing by
// main, returns when the agent that started the process lets it go, and says with which exit code to end.
func PluginMain(args []string) (handled bool, exitCode int) {
	if len(args) < 2 || args[0] != "plugin" {
		return false, 0
	}
	if args[1] == wasmWorker {
		return true, wasm.WorkerMain(args[2:]...)
	}
	if args[1] == keptSupervisor {
		return true, supervisor.Main(args[2:])
	}
	d, err := New(args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, "agent plugin:", err)
		return true, 2
	}
	plugin.Serve(args[1], d)
	if c, ok := d.(io.Closer); ok {
		_ = c.Close() // the process ends anyway
	}
	return true, 0
}
