// Package drivertest is the conformance suite of task drivers: what a client
// relies on, tried on a running driver. A driver's own test says in a [Subject] how
// it is made and how it runs the suite's program, and calls [Run].
//
// The program is one Go program with a verb for each behaviour that the suite looks at
// (package drivertest/program); [Build] compiles it for the host, for an image
// or for wasip1. [Session] drives an Execute stream and may be used by a driver's further tests.
package drivertest

import (
	"testing"

	"github.com/sheaf-run/agent/drivers"
)

// Subject is a driver under test.
type Subject struct {
	// New makes a driver that nothing ran on yet, through its real plugin process
	// where possible, and cleans up after it with t.Cleanup. The suite calls Fingerprint, Recover,
	// Prepare and Execute. Several may be alive at once.
	New func(t *testing.T) drivers.Driver

	// Config is the task config (JSON) that runs the suite's program with args,
	// args[0] being the verb.
	Config func(t *testing.T, args ...string) []byte

	// Bad are configs that Prepare must refuse with class sheaf.Invalid, by what is wrong with them.
	Bad map[string][]byte

	// Can says what the driver does; the suite checks that it does it.
	Can Capabilities

	// Short is how many short executions run at concurrency 8; 0 is 1,000.
	Short int

	// Memory is the memory limit in bytes that executions get; 0 is 64 MiB. The
	// program must be able to start in it.
	Memory int64

	// Share is what the executions share a sandbox by; "" gives each its own.
	Share string

	// Env are names that a program may see beside those it was given, as a container's HOME.
	Env []string
}

// Capabilities are what not every driver has.
type Capabilities struct {
	Program bool // runs the suite's program at all; false: only exit codes and output ("exit N", "print OUT ERR")
	Signals bool // Stop's signal reaches the program, which may catch it
	Mounts  bool // mounts appear at their targets, read-only enforced
	Memory  bool // memory limit enforced and told as out_of_memory
	Pids    bool // pids limit enforced and told as out_of_pids
	Peak    bool // cpu_ms and peak_memory_bytes are measured
	Survive bool // an execution outlives the driver's process and Recover re-attaches to it
}
