package httpapi

import (
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/sheaf-run/agent/api"
	"github.com/sheaf-run/agent/internal/gossip"
	"github.com/sheaf-run/agent/sheaf"
)

// monitorParams are the parameters of the stream of an agent's log.
type monitorParams struct {
	Level string `query:"level" maxLength:"8" doc:"debug, info, warn or error; info unless given"`
	Agent string `query:"agent" maxLength:"128" doc:"name of another agent, or ID of its node or server; the one that is asked unless given"`
}

// monitor streams an agent's log: the newest records, then what comes.
func (a *API) monitor(w http.ResponseWriter, r *http.Request, in *monitorParams) error {
	level := slog.LevelInfo
	if in.Level != "" && level.UnmarshalText([]byte(in.Level)) != nil {
		return &sheaf.Error{Class: sheaf.Invalid, Field: "level", Msg: fmt.Sprintf("log level %q is unknown", in.Level), Limit: "debug, info, warn or error"}
	}
	if in.Agent != "" && in.Agent != a.Self().Name {
		return a.passToAgent(w, r, in.Agent)
	}
	release, err := a.waits.take()
	if err != nil {
		return err
	}
	defer release()
	if a.Log == nil {
		return &sheaf.Error{Class: sheaf.Unavailable, Msg: "this agent's log cannot be followed"}
	}
	f := a.Log.Follow(level)
	defer f.Close()
	out := newEventWriter(w, r.Header.Get("Accept") == "text/event-stream")
	if out.write(api.LogLine{}) != nil { // the stream is open, whatever there is to tell
		return nil
	}
	beat := time.NewTicker(a.Limits.Beat)
	defer beat.Stop()
	for {
		var line api.LogLine
		select {
		case <-r.Context().Done():
			return out.fail(revoked(r.Context()))
		case line = <-f.C:
		case <-beat.C:
		}
		if out.write(line) != nil {
			return nil // the reader went away, or takes nothing
		}
	}
}

// passToAgent passes a request that is about an agent on to it.
func (a *API) passToAgent(w http.ResponseWriter, r *http.Request, name string) error {
	if r.Header.Get(forwardedBy) != "" {
		return &sheaf.Error{Class: sheaf.NotFound, Field: "agent", Msg: fmt.Sprintf("this agent is not %q", name)}
	}
	for _, m := range a.Gossip.Members() {
		if m.HTTP == "" || !called(m, name) {
			continue
		}
		if m.Name == a.Self().Name {
			return &sheaf.Error{Class: sheaf.Invalid, Field: "agent", Msg: fmt.Sprintf("%q is this agent", name), Hint: "leave it out"}
		}
		q := r.URL.Query()
		q.Set("agent", m.Name)
		r = r.Clone(r.Context())
		r.URL.RawQuery = q.Encode()
		a.pass(w, r, &upstream{api: a, to: &m})
		return nil
	}
	return &sheaf.Error{Class: sheaf.NotFound, Field: "agent", Msg: fmt.Sprintf("no agent is called %q", name), Hint: "`agent server members` and `agent node list` show them"}
}

func called(m gossip.Member, name string) bool {
	return m.Name == name || m.Server == name || string(m.Node) == name
}
