package httpapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"slices"
	"sync/atomic"
	"time"

	"github.com/sheaf-run/agent/internal/gossip"
	"github.com/sheaf-run/agent/sheaf"
)

const (
	// leaderWait bounds how long a request waits for somebody to lead: an election takes about a
	// second, and without a quorum a write must fail within five.
	leaderWait = 2500 * time.Millisecond
	// leaderGrace is how long an agent that is no leader any more, or gone from gossip, may take to begin its
	// answer: it may have done what it was asked, and be about to say so.
	leaderGrace = time.Second
)

var errMoved = errors.New("the leader changed, or its machine does not answer")

// upstream carries requests on: on a server to the leader, on a client to any server, or with a member to that
// agent. A request that was not sent, since nobody answered, goes to the next; so does a read that was lost on the way.
type upstream struct {
	api *API
	to  *gossip.Member
}

// RoundTrip implements http.RoundTripper. Of the request's URL it uses path and query.
func (u *upstream) RoundTrip(r *http.Request) (*http.Response, error) {
	timer := time.NewTimer(leaderWait)
	defer timer.Stop()
	var tried []string
	for {
		m, err := u.next(r.Context(), timer.C, tried)
		if err != nil {
			return nil, err
		}
		resp, sent, err := u.try(r, m)
		if err == nil {
			return resp, nil
		}
		if harmless := r.Method == http.MethodGet && !hasBody(r); sent && !harmless || u.to != nil || r.Context().Err() != nil {
			return nil, lost(m, sent, err)
		}
		if tried = append(tried, m.Address); u.api.Server == nil && len(tried) >= len(u.api.Gossip.Servers()) {
			return nil, lost(m, sent, err)
		}
	}
}

// transport reaches servers, or the one agent that is meant, with a connection for this request alone.
func (u *upstream) transport() *http.Transport {
	if u.to == nil || u.api.AgentTLS == nil {
		return u.api.toLeader
	}
	t := newToLeader(u.api.AgentTLS(u.to.Name))
	t.DisableKeepAlives = true
	return t
}

func lost(m gossip.Member, sent bool, err error) error {
	said := &sheaf.Error{Class: sheaf.Unavailable, Msg: fmt.Sprintf("pass the request on to %s at %s", m.Name, m.HTTP), Err: err, Hint: "try again"}
	if sent {
		said.Hint = "it may have been done: asking again is safe"
	}
	return said
}

func hasBody(r *http.Request) bool { return r.Body != nil && r.Body != http.NoBody }

// next says who is asked. Those that were tried are not, and on a server that means to wait for another leader. A client that
// knows no server waits for one too: gossip misses those for a moment that were too busy to answer it.
func (u *upstream) next(ctx context.Context, late <-chan time.Time, tried []string) (gossip.Member, error) {
	a := u.api
	if u.to != nil {
		return *u.to, nil
	}
	if a.Server != nil {
		last := ""
		if len(tried) > 0 {
			last = tried[len(tried)-1]
		}
		m, _, err := a.awaitLeader(ctx, late, last)
		return m, err
	}
	var servers []gossip.Member
	for len(servers) == 0 {
		known := a.Gossip.Changed()
		servers = slices.DeleteFunc(a.Gossip.Servers(), func(m gossip.Member) bool { return m.HTTP == "" || slices.Contains(tried, m.Address) })
		if len(servers) > 0 {
			break
		}
		none := &sheaf.Error{Class: sheaf.Unavailable, Msg: "no server is known", Hint: "check `join` in the configuration"}
		if len(tried) > 0 {
			return gossip.Member{}, none
		}
		select {
		case <-known:
		case <-late:
			return gossip.Member{}, none
		case <-ctx.Done():
			return gossip.Member{}, ctx.Err()
		}
	}
	if good := a.good.Load(); good != nil {
		if i := slices.IndexFunc(servers, func(m gossip.Member) bool { return m.Address == *good }); i >= 0 {
			return servers[i], nil
		}
	}
	return servers[0], nil
}

// awaitLeader waits until it is known who leads and how that server is reached, no longer than late. A leader at
// the address not, which has just failed to answer, does not count.
func (a *API) awaitLeader(ctx context.Context, late <-chan time.Time, not string) (m gossip.Member, self bool, err error) {
	for {
		changed, known := a.Server.LeaderChanged(), a.Gossip.Changed()
		leads := a.Server.Leads()
		address, self := a.Server.Leader()
		if leads || !self && address != "" && address != not {
			for _, m := range a.Gossip.Servers() {
				if m.HTTP != "" && m.Address == address {
					return m, leads, nil
				}
			}
			if leads {
				return gossip.Member{}, true, nil
			}
		}
		select {
		case <-changed:
		case <-known:
		case <-ctx.Done():
			return m, false, ctx.Err()
		case <-late:
			switch {
			case address == "" || self:
				err = &sheaf.Error{Class: sheaf.Unavailable, Msg: "the servers have no leader at present", Hint: "wait for an election, or ask with ?stale=true (-stale)"}
			case address == not:
				err = &sheaf.Error{Class: sheaf.Unavailable, Msg: fmt.Sprintf("the leader at %s does not answer", address), Hint: "try again"}
			default:
				err = &sheaf.Error{Class: sheaf.Unavailable, Msg: fmt.Sprintf("the leader at %s is not in the gossip pool", address), Hint: "check `join` in the configuration"}
			}
			return m, false, err
		}
	}
}

// try sends the request to one agent, and gives up when that is no longer the one to ask and has said nothing. sent
// says whether anything may have come there.
func (u *upstream) try(r *http.Request, m gossip.Member) (resp *http.Response, sent bool, err error) {
	target, err := u.api.urlOf(m)
	if err != nil {
		return nil, false, err
	}
	ctx, cancel := context.WithCancelCause(r.Context())
	var connected atomic.Bool
	out := r.Clone(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { connected.Store(true) }}))
	out.URL.Scheme, out.URL.Host, out.Host = target.Scheme, target.Host, ""
	if hasBody(r) {
		out.Body = kept{r.Body}
	}
	answered, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		u.watch(answered, m, func() { cancel(errMoved) })
	}()
	resp, err = u.transport().RoundTrip(out)
	close(answered)
	<-ended
	if err != nil {
		if cause := context.Cause(ctx); errors.Is(cause, errMoved) {
			err = cause
		}
		cancel(nil)
		return nil, connected.Load(), err
	}
	if u.to == nil && u.api.Server == nil {
		u.api.prefer(m, resp.StatusCode != http.StatusServiceUnavailable)
	}
	resp.Body = &released{resp.Body, cancel}
	return resp, true, nil
}

// prefer has the next request begin with the server m, or, where m may be cut off from the others, with the one behind it.
func (a *API) prefer(m gossip.Member, well bool) {
	if servers := a.Gossip.Servers(); !well && len(servers) > 0 {
		i := slices.IndexFunc(servers, func(x gossip.Member) bool { return x.Address == m.Address })
		m = servers[(i+1)%len(servers)]
	}
	a.good.Store(&m.Address)
}

// watch calls giveUp when m has not answered for a while after it ceased to be whom to ask.
func (u *upstream) watch(answered <-chan struct{}, m gossip.Member, giveUp func()) {
	for {
		known := u.api.Gossip.Changed()
		stands := slices.ContainsFunc(u.api.Gossip.Members(), func(x gossip.Member) bool { return x.Name == m.Name && x.HTTP == m.HTTP })
		var changed <-chan struct{}
		if u.to == nil && u.api.Server != nil {
			changed = u.api.Server.LeaderChanged()
			address, _ := u.api.Server.Leader()
			stands = address == m.Address // sooner known than by gossip
		}
		if !stands {
			timer := time.NewTimer(leaderGrace)
			defer timer.Stop()
			select {
			case <-timer.C:
				giveUp()
			case <-answered:
			}
			return
		}
		select {
		case <-answered:
			return
		case <-known:
		case <-changed:
		}
	}
}

// kept is a body that outlives a try which did not begin to send it.
type kept struct{ io.Reader }

// Close does nothing: whoever serves the request closes its body.
func (kept) Close() error { return nil }

// released is the body of a reply whose context ends with it.
type released struct {
	io.ReadCloser
	cancel context.CancelCauseFunc
}

func (b *released) Close() error {
	defer b.cancel(nil)
	return b.ReadCloser.Close()
}
