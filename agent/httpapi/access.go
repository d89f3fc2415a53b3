package httpapi

import (
	"context"
	"fmt"

	"github.com/sheaf-run/agent/internal/acl"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/sheaf"
)

// access is who sent a request, and what the endpoint needs.
type access struct {
	acl   *acl.ACL
	needs Capability
	where scope
}

type accessKey struct{}

// aclOf is what the caller of a request may do. Handlers leave out of their
// replies what it does not allow.
func aclOf(ctx context.Context) *acl.ACL {
	x, _ := ctx.Value(accessKey{}).(access)
	return x.acl
}

// authorize refuses a caller that lacks what the endpoint needs. The context that
// it gives tells aclOf who asks.
func (a *API) authorize(ctx context.Context, e endpoint) (context.Context, error) {
	return context.WithValue(ctx, accessKey{}, access{acl: acl.Management, needs: e.needs, where: e.where}), nil
}

// allow refuses a caller that lacks what the endpoint needs in a namespace.
// Where it may not even read there, it is told no more than that.
func allow(ctx context.Context, namespace string) error {
	x, _ := ctx.Value(accessKey{}).(access)
	if x.acl.Allows(x.needs, namespace) {
		return nil
	}
	return &sheaf.Error{
		Class: sheaf.Denied, Msg: fmt.Sprintf("the token lacks %s in namespace %q", x.needs, namespace),
		Hint: "`agent acl token self` shows what it may do",
	}
}

// findRun is findRun among the runs that the caller may read. One that it may read, and not treat as the
// endpoint would, is refused.
func (a *API) findRun(ctx context.Context, s *state.Snapshot, namespace, ref string) (*state.Run, error) {
	r, err := findRun(s, namespace, ref, aclOf(ctx))
	if err == nil {
		err = allow(ctx, r.Job.Namespace)
	}
	return r, err
}
