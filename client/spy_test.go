package client

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/sheaf-run/agent/drivers"
	"github.com/sheaf-run/agent/drivers/driverpb"
)

// spy is a driver whose executions tell what they see, and outlive its process as
// containers do: each is a file in the state directory, and ends when
// another file appears.
type spy struct {
	name  string // "spy", or "deaf", whose tasks see no signals
	mu    sync.Mutex
	dir   string
	found []string // by Recover, to go on with
}

type spyConfig struct {
	Hold  string `json:"hold"`  // ends when this file is there; "" ends at once
	Exit  int32  `json:"exit"`  // code with which it ends then
	Write string `json:"write"` // bytes to write to the first writable mount
}

func (s *spy) Fingerprint(context.Context) (*driverpb.FingerprintResponse, error) {
	fp := &driverpb.FingerprintResponse{Name: s.name, Healthy: true}
	if s.name == "deaf" {
		fp.Attributes = map[string]string{"driver.deaf.signals": "none"}
	}
	return fp, nil
}

func (s *spy) Prepare(_ context.Context, req *driverpb.PrepareRequest) (*driverpb.PrepareResponse, error) {
	return &driverpb.PrepareResponse{Handle: "h", Digest: "sha256:spy"}, nil
}

func (s *spy) Release(context.Context, string) error { return nil }

func (s *spy) Recover(_ context.Context, req *driverpb.RecoverRequest) (*driverpb.RecoverResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dir, s.found = req.GetStateDir(), nil
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, err
	}
	known := map[string]bool{}
	for _, k := range req.GetKnown() {
		known[k.GetExecution()] = string(k.GetState()) == k.GetExecution()
	}
	there, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, err
	}
	for _, e := range there {
		if known[e.Name()] {
			s.found = append(s.found, e.Name())
			continue
		}
		if err := os.Remove(filepath.Join(s.dir, e.Name())); err != nil {
			return nil, err
		}
	}
	return &driverpb.RecoverResponse{Running: s.found}, nil
}

func (s *spy) Execute(ctx context.Context, commands <-chan *driverpb.Command, events chan<- *driverpb.Event) error {
	ctx, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	stops := map[string]context.CancelFunc{}
	send := func(ev *driverpb.Event) {
		select {
		case events <- ev:
		case <-ctx.Done():
		}
	}
	live := func(id string, c spyConfig) {
		x, stop := context.WithCancel(ctx)
		stops[id] = stop
		all.Go(func() {
			defer stop()
			s.live(ctx, x, id, c, send)
		})
	}
	for _, id := range s.found {
		b, err := os.ReadFile(filepath.Join(s.dir, id))
		if err != nil {
			return err
		}
		var c spyConfig
		_ = json.Unmarshal(b, &c)
		send(spyLog(id, "found again\n"))
		live(id, c)
	}
	for {
		select {
		case c, ok := <-commands:
			if !ok {
				return nil
			}
			if st := c.GetStart(); st != nil {
				id := st.GetExecution()
				if err := os.WriteFile(filepath.Join(s.dir, id), st.GetConfigJson(), 0o600); err != nil {
					return err
				}
				var conf spyConfig
				_ = json.Unmarshal(st.GetConfigJson(), &conf)
				send(&driverpb.Event{Body: &driverpb.Event_Started{Started: &driverpb.Started{Execution: id, State: []byte(id)}}})
				send(spyLog(id, spyReport(st, conf)))
				live(id, conf)
			}
			if st := c.GetStop(); st != nil && stops[st.GetExecution()] != nil {
				send(spyLog(st.GetExecution(), fmt.Sprintf("stop within %d ms\n", st.GetGraceMs())))
				stops[st.GetExecution()]()
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// live waits for the end of one execution: the file, a stop, or the driver's own.
func (s *spy) live(ctx, x context.Context, id string, c spyConfig, send func(*driverpb.Event)) {
	exited := &driverpb.Exited{Execution: id, ExitCode: c.Exit}
	for c.Hold != "" {
		if _, err := os.Stat(c.Hold); err == nil {
			break
		}
		select {
		case <-x.Done():
			if ctx.Err() != nil {
				return
			}
			exited.ExitCode, exited.Signal = -1, "SIGTERM"
			c.Hold = ""
		case <-time.After(5 * time.Millisecond):
		}
	}
	_ = os.Remove(filepath.Join(s.dir, id))
	send(&driverpb.Event{Body: &driverpb.Event_Exited{Exited: exited}})
}

func spyLog(id, text string) *driverpb.Event {
	return &driverpb.Event{Body: &driverpb.Event_Log{Log: &driverpb.Log{Execution: id, Data: []byte(text)}}}
}

// spyReport is what the execution sees, a line each: variables, and the files
// of its mounts with their content.
func spyReport(st *driverpb.Start, c spyConfig) string {
	var b strings.Builder
	for _, e := range st.GetEnv() {
		fmt.Fprintf(&b, "env %s\n", e)
	}
	for _, m := range st.GetMounts() {
		fmt.Fprintf(&b, "mount %s ro=%v\n", m.GetTarget(), m.GetReadOnly())
		_ = filepath.WalkDir(m.GetSource(), func(path string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				content, _ := os.ReadFile(path)
				fmt.Fprintf(&b, "file %s%s %q\n", m.GetTarget(), strings.TrimPrefix(path, m.GetSource()), content)
			}
			return nil
		})
		if c.Write != "" && !m.GetReadOnly() {
			if err := os.WriteFile(filepath.Join(m.GetSource(), "out.txt"), []byte(c.Write), 0o644); err != nil {
				fmt.Fprintf(&b, "error %v\n", err)
			}
		}
	}
	return b.String()
}

var _ drivers.Driver = (*spy)(nil)
