package httpapi

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"runtime"
	"runtime/pprof"
	"time"

	"github.com/sheaf-run/agent/api"
	"github.com/sheaf-run/agent/sheaf"
)

// maxSnapshot bounds a snapshot that is restored: its disk must take it twice.
const maxSnapshot = 64 << 30

// maxProfile bounds how long a CPU profile is taken.
const maxProfile = 60

func (a *API) servers() []api.Server {
	out := []api.Server{}
	for _, m := range a.Server.Members() {
		s := api.Server{ID: m.ID, Name: m.Name, Version: m.Version, Address: m.Address, HTTP: m.HTTP, Leader: m.Leader, Voter: m.Voter, Alive: m.Alive}
		if h := m.Health; h != nil {
			s.Health = &api.ServerHealth{Healthy: h.Healthy, StableSince: h.StableSince, LastContact: h.LastContact, LastTerm: h.LastTerm, LastIndex: h.LastIndex}
		}
		out = append(out, s)
	}
	return out
}

func (a *API) raftPeers(context.Context, *struct{}) (*Body[[]api.Server], error) {
	return &Body[[]api.Server]{Body: a.servers()}, nil
}

// needsServer refuses what only a server can do for itself.
func (a *API) needsServer() error {
	if a.Server == nil {
		return &sheaf.Error{Class: sheaf.NotFound, Msg: "this agent is no server", Hint: "`agent server members` shows which are"}
	}
	return nil
}

func (a *API) raftStats(context.Context, *struct{}) (*Body[map[string]string], error) {
	if err := a.needsServer(); err != nil {
		return nil, err
	}
	return &Body[map[string]string]{Body: a.Server.RaftStats()}, nil
}

func (a *API) settings(context.Context, *struct{}) (*Body[map[string]any], error) {
	return &Body[map[string]any]{Body: a.Settings()}, nil
}

func (a *API) removePeer(ctx context.Context, in *struct{ Body api.RemovePeer }) (*struct{}, error) {
	return &struct{}{}, a.Server.RemovePeer(ctx, in.Body.ID, in.Body.Force)
}

func (a *API) transferLeadership(ctx context.Context, in *struct{ Body api.TransferLeadership }) (*struct{}, error) {
	return &struct{}{}, a.Server.Transfer(ctx, in.Body.ID)
}

func (a *API) autopilotConfig(ctx context.Context, in *ReadParams) (*Body[api.AutopilotConfig], error) {
	if !in.Stale {
		if err := a.Server.VerifyRead(ctx); err != nil {
			return nil, err
		}
	}
	o := a.Server.Snapshot().Operator()
	return &Body[api.AutopilotConfig]{Body: api.AutopilotConfig{Autopilot: o.Autopilot, ModifyIndex: o.Modified}}, nil
}

func (a *API) setAutopilotConfig(ctx context.Context, in *struct{ Body api.AutopilotConfig }) (*Body[api.AutopilotConfig], error) {
	at, err := a.Server.SetAutopilot(ctx, in.Body.Autopilot, in.Body.ModifyIndex)
	return &Body[api.AutopilotConfig]{Body: api.AutopilotConfig{Autopilot: in.Body.Autopilot, ModifyIndex: at}}, err
}

func (a *API) autopilotState(context.Context, *struct{}) (*Body[api.AutopilotState], error) {
	s := api.AutopilotState{Healthy: true, FailureTolerance: a.Server.Tolerance(), Servers: a.servers()}
	if s.FailureTolerance < 0 {
		return nil, &sheaf.Error{Class: sheaf.Unavailable, Msg: "the leader does not know the servers' health yet", Hint: "try again in a moment"}
	}
	for _, x := range s.Servers {
		if x.Leader {
			s.Leader = x.ID
		}
		if x.Voter && (x.Health == nil || !x.Health.Healthy) {
			s.Healthy = false
		}
	}
	return &Body[api.AutopilotState]{Body: s}, nil
}

func (a *API) saveSnapshot(w http.ResponseWriter, r *http.Request, _ *struct{}) error {
	w.Header().Set("Content-Type", "application/octet-stream")
	return a.Server.SaveSnapshot(r.Context(), w)
}

func (a *API) restoreSnapshot(w http.ResponseWriter, r *http.Request, in *struct {
	Force bool `query:"force" doc:"also a snapshot of another cluster"`
}) error {
	got, err := a.Server.RestoreSnapshot(r.Context(), r.Body, in.Force)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(api.RestoredSnapshot{Index: got.Index, Runs: got.Runs, Nodes: got.Nodes})
}

func (a *API) leave(ctx context.Context, _ *struct {
	Body struct{} `required:"false"`
}) (*struct{}, error) {
	return &struct{}{}, a.Leave(ctx)
}

// profile writes one of Go's profiles of this process.
func (a *API) profile(w http.ResponseWriter, r *http.Request, in *struct {
	Profile string `path:"profile" maxLength:"64"`
	Seconds int    `query:"seconds" minimum:"0" maximum:"60" doc:"of a cpu profile"`
}) error {
	w.Header().Set("Content-Type", "application/octet-stream")
	if in.Profile == "cpu" {
		if err := pprof.StartCPUProfile(w); err != nil {
			return &sheaf.Error{Class: sheaf.Conflict, Msg: "a profile is being taken already", Err: err, Hint: "try again when it is done"}
		}
		defer pprof.StopCPUProfile()
		select {
		case <-time.After(time.Duration(min(max(in.Seconds, 1), maxProfile)) * time.Second):
		case <-r.Context().Done():
		}
		return nil
	}
	p := pprof.Lookup(in.Profile)
	if p == nil {
		return &sheaf.Error{Class: sheaf.NotFound, Field: "profile", Msg: fmt.Sprintf("there is no profile %q", in.Profile), Hint: "cpu, goroutine, heap, allocs, mutex, block, threadcreate"}
	}
	if in.Profile == "heap" {
		runtime.GC() // so that it shows what is held, not what was
	}
	return p.WriteTo(w, 0)
}
