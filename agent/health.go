package agent

import (
	"context"

	"github.com/sheaf-run/agent/api"
	"github.com/sheaf-run/agent/jobspec"
	"github.com/sheaf-run/agent/sheaf"
)

// parseJob reads a jobspec that the API was handed. It has no folder: relative paths are mistakes there.
func (a *Agent) parseJob(ctx context.Context, src jobspec.Source, vars map[string]string) (*sheaf.Job, error) {
	job, _, err := jobspec.Parse(ctx, src, jobspec.Options{Vars: vars, Drivers: a.schemas()})
	return job, err
}

func (a *Agent) readJob(data []byte) (*sheaf.Job, error) { return jobspec.ParseJSON(data, a.schemas()) }

// health says whether the agent can do its work, and what it waits for.
func (a *Agent) health() api.Health {
	h := api.Health{Live: true, Ready: true}
	no := func(reason string) { h.Ready, h.Reasons = false, append(h.Reasons, reason) }
	if a.server != nil {
		if leader, _ := a.server.Leader(); leader == "" {
			no("the servers have no leader at present")
		}
	} else if len(a.pool.Servers()) == 0 {
		no("no server is known yet")
	}
	if len(a.clients) > 0 && !isClosed(a.ready) {
		no("the client is not registered yet")
	}
	return h
}

func isClosed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

// announceReady closes ready once this agent's server takes work and its clients have joined.
func (a *Agent) announceReady(ctx context.Context) error {
	if a.server != nil {
		select {
		case <-a.server.Ready():
		case <-ctx.Done():
			return nil
		}
	}
	for _, c := range a.clients {
		select {
		case <-c.Ready():
		case <-ctx.Done():
			return nil
		}
	}
	a.readyOnce.Do(func() { close(a.ready) })
	return nil
}
