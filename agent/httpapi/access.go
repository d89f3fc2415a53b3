package httpapi

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/sheaf-run/agent/api"
	"github.com/sheaf-run/agent/internal/acl"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/sheaf"
)

// recheckEvery is how often the token of a request that takes long is looked at again: a stream whose token
// was deleted, or whose policies changed, ends within that.
const recheckEvery = 5 * time.Second

// never is beyond the end of every request.
const never = 1000 * time.Hour

// access is who sent a request, and what the endpoint needs.
type access struct {
	acl       *acl.ACL
	anonymous bool
	needs     Capability
}

type accessKey struct{}

func accessOf(ctx context.Context) access {
	x, _ := ctx.Value(accessKey{}).(access)
	return x
}

// aclOf is what the caller of a request may do. Handlers leave out of their
// replies what it does not allow.
func aclOf(ctx context.Context) *acl.ACL { return accessOf(ctx).acl }

// authorized stands before every endpoint, and before a byte of the request's body or
// parameters is looked at: it refuses a caller that lacks what the endpoint needs, tells
// aclOf who asks, and ends the request when the caller's rights do.
func (a *API) authorized(e endpoint) func(huma.Context, func(huma.Context)) {
	return func(hc huma.Context, next func(huma.Context)) {
		ctx, cancel := context.WithCancelCause(hc.Context())
		defer cancel(nil)
		who := &caller{acl: acl.Management, rights: "all"}
		if a.ACL && e.needs == Anyone {
			who = &caller{} // nobody has asked who it is
		} else if a.ACL {
			secret := tokenOf(hc)
			var err error
			if who, err = a.identify(ctx, secret); err == nil {
				err = who.permit(e, hc.Query("namespace"))
			}
			if err != nil {
				_, w := humago.Unwrap(hc)
				writeProblem(w, a.log, err)
				return
			}
			defer a.recheck(ctx, secret, who, cancel)()
		}
		next(huma.WithContext(hc, context.WithValue(ctx, accessKey{}, access{who.acl, who.anonymous, e.needs})))
	}
}

// tokenOf is the secret that a request shows; "" if none.
func tokenOf(hc huma.Context) string {
	return tokenIn(hc.Header(api.HeaderToken), hc.Header("Authorization"))
}

func tokenIn(header, authorization string) string {
	if header != "" {
		return header
	}
	kind, t, _ := strings.Cut(authorization, " ")
	if !strings.EqualFold(kind, "bearer") {
		return ""
	}
	return strings.TrimSpace(t)
}

// permit is what is known of a caller's right before the handler looks at the request.
func (c *caller) permit(e endpoint, namespace string) error {
	if !c.acl.AllowsSomewhere(e.needs) {
		return c.lacks(e.needs, "")
	}
	if e.where == inList && namespace != "" && namespace != "*" && !c.acl.Allows(e.needs, namespace) {
		return c.lacks(e.needs, namespace)
	}
	return nil
}

// lacks is the refusal of a caller that may not do something. Who showed no token is asked for one.
func (c *caller) lacks(needs Capability, namespace string) error {
	where := ""
	if namespace != "" {
		where = fmt.Sprintf(" in namespace %q", namespace)
	}
	if c.anonymous {
		return &sheaf.Error{
			Class: sheaf.NoIdentity, Field: api.HeaderToken, Msg: fmt.Sprintf("this needs a token with %s%s", needs, where),
			Hint: "set SHEAF_TOKEN or give -token; whoever may, makes one with `agent acl token create`",
		}
	}
	return &sheaf.Error{
		Class: sheaf.Denied, Field: api.HeaderToken, Msg: fmt.Sprintf("the token lacks %s%s", needs, where),
		Hint: "`agent acl token self` shows what it may do",
	}
}

// allow refuses a caller that lacks what the endpoint needs in a namespace.
func allow(ctx context.Context, namespace string) error {
	x := accessOf(ctx)
	if x.acl.Allows(x.needs, namespace) {
		return nil
	}
	return (&caller{acl: x.acl, anonymous: x.anonymous}).lacks(x.needs, namespace)
}

// recheck looks at a caller's token again and again until stop is called, and cancels
// its request when the rights are no longer those that the request began with.
func (a *API) recheck(ctx context.Context, secret string, was *caller, cancel context.CancelCauseFunc) (stop func()) {
	var timer *time.Timer
	timer = time.AfterFunc(never, func() {
		now, err := a.identify(ctx, secret)
		var ours *sheaf.Error
		switch {
		case ctx.Err() != nil:
			return
		case err != nil && errors.As(err, &ours) && ours.Class == sheaf.Unavailable && was.fresh():
			// No server could be asked. What was learned is still good for a while.
		case err != nil:
			cancel(err)
			return
		case now.rights != was.rights:
			cancel(&sheaf.Error{Class: sheaf.Denied, Field: api.HeaderToken, Msg: "what the token may do has changed", Hint: "ask again"})
			return
		default:
			was = now
		}
		timer.Reset(a.Recheck)
	})
	timer.Reset(a.Recheck) // only now, since the function above uses the variable
	return func() { timer.Stop() }
}

// because is why a request failed: where it was cancelled for the caller's rights, that.
func because(ctx context.Context, err error) error {
	if why := revoked(ctx); why != nil {
		return why
	}
	return err
}

// revoked is why a request was cancelled, where that was for the caller's rights; else nil.
func revoked(ctx context.Context) error {
	var ours *sheaf.Error
	if ctx.Err() != nil && errors.As(context.Cause(ctx), &ours) {
		return ours
	}
	return nil
}

// findRun is findRun among the runs that the caller may read. One that it may read, and not treat as the
// endpoint would, is refused.
func (a *API) findRun(ctx context.Context, s *state.Snapshot, namespace, ref string) (*state.Run, error) {
	r, err := findRun(s, namespace, ref, aclOf(ctx))
	if err != nil {
		return nil, err
	}
	if err := allow(ctx, r.Job.Namespace); err != nil {
		return nil, err
	}
	return r, nil
}

// off is the refusal of what only means something with ACLs.
func (a *API) off() error {
	if a.ACL {
		return nil
	}
	return &sheaf.Error{Class: sheaf.Conflict, Field: "acl", Msg: "ACLs are off on this agent: everyone may do everything", Hint: "set acl { enabled = true } in the configuration of every agent"}
}

// hidden is the refusal of a thing that is not there, or not for this caller.
func hidden(what, name, hint string) error {
	return &sheaf.Error{Class: sheaf.NotFound, Field: what, Msg: fmt.Sprintf("there is no %s %q", what, name), Hint: hint}
}
