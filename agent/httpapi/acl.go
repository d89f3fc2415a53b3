package httpapi

import (
	"context"
	"time"

	"github.com/sheaf-run/agent/api"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/sheaf"
)

// maxPolicyBody is a policy's rules, escaped as JSON.
const maxPolicyBody = 256 << 10

func (a *API) bootstrapACL(ctx context.Context, in *struct{ Body api.BootstrapRequest }) (*Body[api.NewToken], error) {
	if err := a.off(); err != nil {
		return nil, err
	}
	t, secret, err := a.Server.BootstrapACL(ctx, in.Body.Secret)
	return &Body[api.NewToken]{Body: api.NewToken{Token: t, Secret: secret}}, err
}

// selfACL tells a caller who it is. It needs no capability, and a token that is not valid is refused all the same.
func (a *API) selfACL(ctx context.Context, in *struct {
	Token  string `header:"X-Sheaf-Token" maxLength:"256"`
	Bearer string `header:"Authorization" maxLength:"300"`
}) (*Body[api.ACLSelf], error) {
	if err := a.off(); err != nil {
		return nil, err
	}
	who, err := a.identify(ctx, tokenIn(in.Token, in.Bearer))
	if err != nil {
		return nil, err
	}
	return &Body[api.ACLSelf]{Body: api.ACLSelf{Token: who.token, Policies: who.policies}}, nil
}

func showPolicy(p *state.Policy) sheaf.Policy {
	return sheaf.Policy{Name: p.Name, Description: p.Description, Rules: p.Rules, Modified: p.Modified}
}

func ofPolicies(s *state.Snapshot) (uint64, <-chan struct{}) { return s.Index(), s.WatchPolicies() }

func ofTokens(s *state.Snapshot) (uint64, <-chan struct{}) { return s.Index(), s.WatchTokens() }

func (a *API) listPolicies(ctx context.Context, in *struct {
	ReadParams
	PageParams
}) (*Body[[]sheaf.Policy], error) {
	snap, headers, err := a.view(ctx, in.ReadParams, ofPolicies)
	if err != nil {
		return nil, err
	}
	rows := func(yield func(sheaf.Policy) bool) {
		for p := range snap.Policies() {
			stub := showPolicy(p)
			stub.Rules = ""
			if !yield(stub) {
				return
			}
		}
	}
	page, next, err := Page(ctx, in.PageParams, rows, func(p sheaf.Policy) string { return p.Name })
	headers.NextToken = next
	return &Body[[]sheaf.Policy]{headers, page}, err
}

// PolicyParams name a policy. Embedded parameters must be exported to be read.
type PolicyParams struct {
	Name string `path:"name" maxLength:"64"`
}

func (a *API) getPolicy(ctx context.Context, in *struct {
	PolicyParams
	ReadParams
}) (*Body[sheaf.Policy], error) {
	snap, headers, err := a.view(ctx, in.ReadParams, ofPolicies)
	if err != nil {
		return nil, err
	}
	p := snap.Policy(in.Name)
	if p == nil {
		return nil, hidden("policy", in.Name, "`agent acl policy list` shows those there are")
	}
	return &Body[sheaf.Policy]{headers, showPolicy(p)}, nil
}

func (a *API) putPolicy(ctx context.Context, in *struct {
	PolicyParams
	Body api.PolicyRequest
}) (*Body[api.Changed], error) {
	if err := a.off(); err != nil {
		return nil, err
	}
	index, err := a.Server.PutPolicy(ctx, sheaf.Policy{Name: in.Name, Description: in.Body.Description, Rules: in.Body.Rules})
	return &Body[api.Changed]{Body: api.Changed{Index: index}}, err
}

func (a *API) deletePolicy(ctx context.Context, in *PolicyParams) (*struct{}, error) {
	if err := a.off(); err != nil {
		return nil, err
	}
	_, err := a.Server.DeletePolicy(ctx, in.Name)
	return nil, err
}

func (a *API) listTokens(ctx context.Context, in *struct {
	ReadParams
	PageParams
}) (*Body[[]sheaf.Token], error) {
	snap, headers, err := a.view(ctx, in.ReadParams, ofTokens)
	if err != nil {
		return nil, err
	}
	rows := func(yield func(sheaf.Token) bool) {
		for t := range snap.Tokens() {
			if !yield(t.Show()) {
				return
			}
		}
	}
	page, next, err := Page(ctx, in.PageParams, rows, func(t sheaf.Token) string { return t.Accessor })
	headers.NextToken = next
	return &Body[[]sheaf.Token]{headers, page}, err
}

// TokenParams name a token.
type TokenParams struct {
	Accessor string `path:"accessor" maxLength:"64"`
}

func (a *API) getToken(ctx context.Context, in *struct {
	TokenParams
	ReadParams
}) (*Body[sheaf.Token], error) {
	snap, headers, err := a.view(ctx, in.ReadParams, ofTokens)
	if err != nil {
		return nil, err
	}
	t := snap.Token(in.Accessor)
	if t == nil {
		return nil, hidden("token", in.Accessor, "`agent acl token list` shows the accessors of those there are")
	}
	return &Body[sheaf.Token]{headers, t.Show()}, nil
}

func (a *API) createToken(ctx context.Context, in *struct{ Body api.TokenRequest }) (*Body[api.NewToken], error) {
	if err := a.off(); err != nil {
		return nil, err
	}
	t, secret, err := a.Server.CreateToken(ctx, sheaf.Token{Name: in.Body.Name, Type: in.Body.Type, Policies: in.Body.Policies}, time.Duration(in.Body.TTL))
	return &Body[api.NewToken]{Body: api.NewToken{Token: t, Secret: secret}}, err
}

func (a *API) deleteToken(ctx context.Context, in *TokenParams) (*struct{}, error) {
	if err := a.off(); err != nil {
		return nil, err
	}
	_, err := a.Server.DeleteToken(ctx, in.Accessor)
	return nil, err
}
