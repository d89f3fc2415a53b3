// Example is a task driver in a program of its own, to begin a driver from: it says
// what it is told to say, waits, and ends with an exit code. It imports what any program may:
// the contract (drivers, drivers/driverpb), the serving of it (drivers/plugin) and the domain (sheaf).
//
//	task "hello" {
//	  driver = "example"
//	  config {
//	    say   = "partition ${partition.index}"
//	    sleep = "100ms"
//	  }
//	}
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/sheaf-run/agent/drivers"
	"github.com/sheaf-run/agent/drivers/driverpb"
	"github.com/sheaf-run/agent/drivers/plugin"
	"github.com/sheaf-run/agent/sheaf"
)

// name is what jobs call the driver, and how the program is called in the plugin directory.
const name = "example"

func main() {
	options, err := plugin.Options()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	plugin.Serve(name, &driver{greeting: options["greeting"]})
}

// config is a task's config block.
type config struct {
	Say   string         `json:"say"`   // to stdout
	Warn  string         `json:"warn"`  // to stderr
	Sleep sheaf.Duration `json:"sleep"` // before it ends
	Exit  int32          `json:"exit"`  // its exit code
}

func parse(text []byte) (config, error) {
	var c config
	if err := drivers.DecodeConfig(name, text, &c); err != nil {
		return c, err
	}
	if c.Exit < 0 || c.Exit > 255 {
		return c, &sheaf.Error{Class: sheaf.Invalid, Field: "config.exit", Msg: fmt.Sprintf("exit is %d", c.Exit), Limit: "0 to 255"}
	}
	if c.Sleep < 0 {
		return c, &sheaf.Error{Class: sheaf.Invalid, Field: "config.sleep", Msg: "sleep is negative", Hint: `write it as in "100ms"`}
	}
	return c, nil
}

// driver implements drivers.Driver.
type driver struct {
	greeting string // of the node's configuration; printed before what a task says
}

var _ drivers.Driver = (*driver)(nil)

// Fingerprint says that the driver works here, and what tasks can expect of it.
func (d *driver) Fingerprint(context.Context) (*driverpb.FingerprintResponse, error) {
	return &driverpb.FingerprintResponse{Name: name, Healthy: true, Attributes: map[string]string{"driver." + name + ".signals": "none"}}, nil
}

// Prepare is called once for a run: a mistake is found here, before anything runs.
func (d *driver) Prepare(_ context.Context, req *driverpb.PrepareRequest) (*driverpb.PrepareResponse, error) {
	if _, err := parse(req.GetConfigJson()); err != nil {
		return nil, err
	}
	return &driverpb.PrepareResponse{Handle: name}, nil
}

// Release gives up what Prepare made: nothing.
func (d *driver) Release(context.Context, string) error { return nil }

// Recover finds nothing: what this driver runs ends with its process.
func (d *driver) Recover(context.Context, *driverpb.RecoverRequest) (*driverpb.RecoverResponse, error) {
	return &driverpb.RecoverResponse{}, nil
}

// errStopped is why an execution ended that was told to.
var errStopped = errors.New("stopped")

// execution is one that is under way.
type execution struct {
	stop   context.CancelCauseFunc
	window drivers.Window // of log bytes that the client has not taken yet
}

// Execute runs executions until commands is closed or ctx ends, each in a goroutine.
func (d *driver) Execute(ctx context.Context, commands <-chan *driverpb.Command, events chan<- *driverpb.Event) error {
	running := map[string]*execution{}
	over := make(chan string)
	var all sync.WaitGroup
	defer all.Wait()
	for {
		select {
		case <-ctx.Done():
			for _, e := range running {
				e.stop(errStopped)
			}
			for range running {
				<-over
			}
			return ctx.Err()
		case id := <-over:
			delete(running, id)
		case c, ok := <-commands:
			switch {
			case !ok: // end what runs, and say so
				for _, e := range running {
					e.stop(errStopped)
				}
				for range running {
					<-over
				}
				return nil
			case c.GetStart() != nil:
				start := c.GetStart()
				e := &execution{}
				var own context.Context
				own, e.stop = context.WithCancelCause(ctx)
				running[start.GetExecution()] = e
				all.Go(func() {
					exited := d.run(own, start, e, events)
					e.stop(nil)
					send(ctx, events, &driverpb.Event{Body: &driverpb.Event_Exited{Exited: exited}})
					over <- start.GetExecution()
				})
			case c.GetStop() != nil:
				if e := running[c.GetStop().GetExecution()]; e != nil {
					e.stop(errStopped)
				}
			case c.GetFlow() != nil:
				if e := running[c.GetFlow().GetExecution()]; e != nil {
					e.window.Ack(c.GetFlow().GetBytes())
				}
			}
		}
	}
}

// send gives up once ctx ends: then nobody need receive any more.
func send(ctx context.Context, events chan<- *driverpb.Event, ev *driverpb.Event) {
	select {
	case events <- ev:
	case <-ctx.Done():
	}
}

// run is one execution. Its Exited is the last that is sent of it.
func (d *driver) run(ctx context.Context, start *driverpb.Start, e *execution, events chan<- *driverpb.Event) *driverpb.Exited {
	began := time.Now()
	exited := &driverpb.Exited{Execution: start.GetExecution(), StartedUnixMs: began.UnixMilli()}
	c, err := parse(start.GetConfigJson()) // references in it are filled in by now
	if err != nil {
		exited.ExitCode, exited.NotStarted, exited.Error = -1, true, err.Error()
		return exited
	}
	send(ctx, events, &driverpb.Event{Body: &driverpb.Event_Started{Started: &driverpb.Started{Execution: start.GetExecution()}}})
	say := c.Say
	if d.greeting != "" {
		say = d.greeting + " " + say
	}
	for _, out := range []struct {
		text   string
		stderr bool
	}{{say, false}, {c.Warn, true}} {
		for text := out.text; len(text) > 0; {
			n := min(len(text), drivers.MaxLog)
			if e.window.Take(ctx, int64(n)) != nil {
				break
			}
			send(ctx, events, &driverpb.Event{Body: &driverpb.Event_Log{Log: &driverpb.Log{Execution: start.GetExecution(), Stderr: out.stderr, Data: []byte(text[:n])}}})
			text = text[n:]
		}
	}
	select {
	case <-time.After(time.Duration(c.Sleep)):
		exited.ExitCode = c.Exit
	case <-ctx.Done():
		exited.ExitCode, exited.Signal = -1, "SIGKILL"
	}
	exited.DurationMs = time.Since(began).Milliseconds()
	return exited
}
