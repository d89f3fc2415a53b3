package command

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/sheaf-run/agent/api"
	"github.com/sheaf-run/agent/sheaf"
)

// maxDebugDuration bounds how long a bundle is collected; a CPU profile may be no longer.
const maxDebugDuration = time.Minute

func (e *env) operatorDebug() *cobra.Command {
	var out string
	var duration time.Duration
	c := &cobra.Command{
		Use: "debug", Short: "Collect what helps to find out what is wrong", Args: args(0, "no arguments"),
		Long: "Writes a bundle about the agent that answers: its configuration, members, servers, raft, metrics, health, its log while it is\n" +
			"collected, profiles of heap, goroutines and CPU.\n" +
			"No secrets, tokens or outputs are in it; names of jobs and nodes are. What could not be had is named in errors.txt.\n\n" + exitHelp,
		RunE: func(c *cobra.Command, _ []string) error {
			if duration < time.Second || duration > maxDebugDuration {
				return usage("-duration %v: give 1s to %v", duration, maxDebugDuration)
			}
			client, err := e.client()
			if err != nil {
				return err
			}
			if out == "" {
				out = "sheaf-debug-" + time.Now().UTC().Format("20060102T150405Z") + ".tar.gz"
			}
			if err := writeBundle(c.Context(), client, out, duration); err != nil {
				return err
			}
			if ok, err := e.shaped(map[string]string{"file": out}, out); ok {
				return err
			}
			fmt.Fprintln(e.out, "wrote", out)
			return nil
		},
	}
	c.Flags().StringVar(&out, "o", "", "the `FILE` to write; sheaf-debug-TIME.tar.gz otherwise")
	c.Flags().DurationVar(&duration, "duration", 5*time.Second, "how long log and CPU profile are taken")
	return c
}

// piece is one file of a bundle.
type piece struct {
	name string
	get  func(context.Context) ([]byte, error)
}

func asJSON[T any](get func(context.Context) (T, error)) func(context.Context) ([]byte, error) {
	return func(ctx context.Context) ([]byte, error) {
		v, err := get(ctx)
		if err != nil {
			return nil, err
		}
		return json.MarshalIndent(v, "", "  ")
	}
}

func profileOf(client *api.Client, name string, seconds int) func(context.Context) ([]byte, error) {
	return func(ctx context.Context) ([]byte, error) {
		var b bytes.Buffer
		err := client.Profile(ctx, name, seconds, &b)
		return b.Bytes(), err
	}
}

// maxLogLines bounds what a bundle holds of the log: some megabytes.
const maxLogLines = 20_000

// followLog follows the agent's log at its lowest level, beside the other pieces, and gives it when the time is over.
func followLog(ctx context.Context, client *api.Client, duration time.Duration) func(context.Context) ([]byte, error) {
	var b bytes.Buffer
	done := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(ctx, duration)
		defer cancel()
		lines := 0
		out := json.NewEncoder(&b)
		for line, err := range client.Monitor(ctx, api.MonitorOptions{Level: "debug"}) {
			if err == nil && lines < maxLogLines {
				err = out.Encode(line)
			}
			if lines++; err != nil && ctx.Err() == nil {
				done <- err
				return
			}
			if err != nil || lines > maxLogLines {
				break
			}
		}
		done <- nil
	}()
	return func(context.Context) ([]byte, error) {
		err := <-done
		return b.Bytes(), err
	}
}

// writeBundle asks for everything and writes what it got; an agent that does not answer at all is an error.
func writeBundle(ctx context.Context, client *api.Client, path string, duration time.Duration) (err error) {
	if _, err := client.Self(ctx); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return &sheaf.Error{Class: sheaf.Invalid, Field: "o", Msg: "write the bundle", Err: err}
	}
	zip := gzip.NewWriter(f)
	bundle := tar.NewWriter(zip)
	var failed bytes.Buffer
	stale := api.Read{Stale: true}
	log := followLog(ctx, client, duration)
	for _, p := range []piece{
		{"self.json", asJSON(client.Self)},
		{"config.json", asJSON(client.Settings)},
		{"members.json", asJSON(client.Members)},
		{"health.json", asJSON(client.Health)},
		{"servers.json", asJSON(func(ctx context.Context) ([]api.Server, error) { return client.RaftPeers(ctx, true) })},
		{"raft.json", asJSON(client.RaftStats)},
		{"state.json", asJSON(client.State)},
		{"autopilot.json", asJSON(client.AutopilotState)},
		{"nodes.json", asJSON(func(ctx context.Context) ([]sheaf.Node, error) {
			nodes, _, err := client.Nodes(ctx, stale)
			return nodes, err
		})},
		{"metrics.txt", func(ctx context.Context) ([]byte, error) {
			r, err := client.Metrics(ctx)
			if err != nil {
				return nil, err
			}
			defer r.Close()
			return io.ReadAll(r)
		}},
		{"goroutine.pprof", profileOf(client, "goroutine", 0)},
		{"heap.pprof", profileOf(client, "heap", 0)},
		{"cpu.pprof", profileOf(client, "cpu", int(duration.Seconds()))},
		{"log.ndjson", log},
	} {
		b, getErr := p.get(ctx)
		if getErr != nil {
			fmt.Fprintf(&failed, "%s: %v\n", p.name, getErr)
			continue
		}
		err = errors.Join(err, addFile(bundle, p.name, b))
	}
	if failed.Len() > 0 {
		err = errors.Join(err, addFile(bundle, "errors.txt", failed.Bytes()))
	}
	return errors.Join(err, bundle.Close(), zip.Close(), f.Close())
}

func addFile(t *tar.Writer, name string, b []byte) error {
	if err := t.WriteHeader(&tar.Header{Name: "sheaf-debug/" + name, Mode: 0o600, Size: int64(len(b)), ModTime: time.Now()}); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if _, err := io.Copy(t, bytes.NewReader(b)); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}
