// Package mock is a task driver that runs nothing: its executions take a
// time, print, write files and end as their config says. It is for tests and benchmarks of
// everything around a driver, and is cheap enough for millions of partitions.
// It holds no state between executions; which try fails is told by the execution's ID.
package mock

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/sheaf-run/agent/drivers"
	"github.com/sheaf-run/agent/drivers/driverpb"
	"github.com/sheaf-run/agent/sheaf"
)

// Schema is the driver's config block.
var Schema = sheaf.ConfigSchema{Driver: "mock", Attributes: []sheaf.ConfigAttribute{
	{Name: "duration", Kind: sheaf.ConfigString, Doc: "how long an execution takes, as in \"5ms\"; default none"},
	{Name: "duration_dist", Kind: sheaf.ConfigString, Doc: "\"fixed\" (default), or \"exp\" or \"pareto\" (shape 1.5) with duration as their mean"},
	{Name: "exit_code", Kind: sheaf.ConfigNumber, Doc: "of those that do not fail; default 0"},
	{Name: "fail_times", Kind: sheaf.ConfigNumber, Doc: "attempts up to this number exit 1"},
	{Name: "fail_partitions", Kind: sheaf.ConfigStrings, Doc: "partitions that fail, always or fail_times times"},
	{Name: "crash", Kind: sheaf.ConfigBool, Doc: "what fails takes the driver's process with it"},
	{Name: "stdout", Kind: sheaf.ConfigString, Doc: "printed to standard output"},
	{Name: "stderr", Kind: sheaf.ConfigString, Doc: "printed to standard error"},
	{Name: "outputs", Kind: sheaf.ConfigMap, Doc: "files to write: path in the task's tree to content"},
}}

// failedExit is the exit code of an execution that was made to fail.
const failedExit = 1

// paretoShape makes a few executions many times slower than most.
const paretoShape = 1.5

type config struct {
	Duration       sheaf.Duration    `json:"duration"`
	DurationDist   string            `json:"duration_dist"`
	ExitCode       float64           `json:"exit_code"`
	FailTimes      float64           `json:"fail_times"`
	FailPartitions []string          `json:"fail_partitions"`
	Crash          bool              `json:"crash"`
	Stdout         string            `json:"stdout"`
	Stderr         string            `json:"stderr"`
	Outputs        map[string]string `json:"outputs"`

	failing map[string]bool // FailPartitions
}

func parse(data []byte) (*config, error) {
	c := &config{}
	if err := drivers.DecodeConfig("mock", data, c); err != nil {
		return nil, err
	}
	switch c.DurationDist {
	case "", "fixed", "exp", "pareto":
	default:
		return nil, invalid("duration_dist", fmt.Sprintf("%q is no distribution", c.DurationDist), `use "fixed", "exp" or "pareto"`)
	}
	if c.Duration < 0 {
		return nil, invalid("duration", fmt.Sprintf("duration %v is negative", c.Duration), `as in "5ms"`)
	}
	if c.ExitCode < 0 || c.ExitCode > 255 || c.ExitCode != math.Trunc(c.ExitCode) {
		return nil, invalid("exit_code", fmt.Sprintf("%v is no exit code", c.ExitCode), "0 to 255")
	}
	if len(c.FailPartitions) > 0 {
		c.failing = make(map[string]bool, len(c.FailPartitions))
		for _, p := range c.FailPartitions {
			c.failing[p] = true
		}
	}
	return c, nil
}

func invalid(field, msg, hint string) error {
	return &sheaf.Error{Class: sheaf.Invalid, Field: "config." + field, Msg: msg, Hint: hint}
}

// fails reports whether this attempt at this partition is to fail.
func (c *config) fails(execution string) bool {
	if c.FailTimes == 0 && c.failing == nil {
		return c.Crash
	}
	rest, attempt, _ := cutLast(execution)
	if c.FailTimes > 0 {
		if n, err := strconv.Atoi(attempt); err != nil || float64(n) > c.FailTimes {
			return false
		}
	}
	_, partition, _ := cutLast(rest)
	return c.failing == nil || c.failing[partition]
}

func cutLast(s string) (before, after string, found bool) {
	i := strings.LastIndexByte(s, '.')
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+1:], true
}

func (c *config) duration() time.Duration {
	d := float64(c.Duration)
	switch c.DurationDist {
	case "exp":
		d *= rand.ExpFloat64()
	case "pareto":
		d *= (paretoShape - 1) / paretoShape * math.Pow(1-rand.Float64(), -1/paretoShape)
	}
	return time.Duration(d)
}

// Driver is the mock driver.
type Driver struct {
	mu       sync.Mutex
	prepared map[string]*config // by the config's own bytes, and thereby by handle
}

var _ drivers.Driver = (*Driver)(nil)

// New makes the driver.
func New() *Driver { return &Driver{prepared: map[string]*config{}} }

// Fingerprint is always healthy.
func (d *Driver) Fingerprint(context.Context) (*driverpb.FingerprintResponse, error) {
	return &driverpb.FingerprintResponse{Name: "mock", Healthy: true}, nil
}

// Prepare reads the config, so that a mistake is found before anything runs.
// The handle is the config itself.
func (d *Driver) Prepare(_ context.Context, req *driverpb.PrepareRequest) (*driverpb.PrepareResponse, error) {
	c, err := parse(req.GetConfigJson())
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.prepared[string(req.GetConfigJson())] = c
	return &driverpb.PrepareResponse{Handle: string(req.GetConfigJson())}, nil
}

// Release forgets a config.
func (d *Driver) Release(_ context.Context, handle string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.prepared, handle)
	return nil
}

// Recover finds nothing: no execution outlives the driver.
func (d *Driver) Recover(context.Context, *driverpb.RecoverRequest) (*driverpb.RecoverResponse, error) {
	return &driverpb.RecoverResponse{}, nil
}

// config is the config of a start: the prepared one unless references in it were expanded.
func (d *Driver) config(start *driverpb.Start) (*config, error) {
	d.mu.Lock()
	c := d.prepared[string(start.GetConfigJson())]
	d.mu.Unlock()
	if c != nil {
		return c, nil
	}
	return parse(start.GetConfigJson())
}

// writeOutputs writes each file into the mount that its path lies in.
func writeOutputs(start *driverpb.Start, files map[string]string) error {
	for path, content := range files {
		host := ""
		for _, m := range start.GetMounts() {
			rest, ok := strings.CutPrefix(path, strings.TrimSuffix(m.GetTarget(), "/")+"/")
			if ok && !m.GetReadOnly() {
				host = m.GetSource() + "/" + rest
			}
		}
		if host == "" {
			return fmt.Errorf("write %s: no writable mount holds it", path)
		}
		if i := strings.LastIndexByte(host, '/'); i > 0 {
			if err := os.MkdirAll(host[:i], 0o755); err != nil {
				return err
			}
		}
		if err := os.WriteFile(host, []byte(content), 0o644); err != nil {
			return err
		}
	}
	return nil
}
