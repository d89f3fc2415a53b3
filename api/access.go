package api

import (
	"context"
	"net/http"
	"net/url"

	"github.com/sheaf-run/agent/sheaf"
)

// BootstrapRequest asks for the cluster's first management token.
type BootstrapRequest struct {
	Secret string `json:"secret,omitempty"` // 36 to 128 letters; made up if empty
}

// NewToken is a token with its secret, which cannot be had again.
type NewToken struct {
	sheaf.Token
	Secret string `json:"secret"`
}

// TokenRequest asks for a token.
type TokenRequest struct {
	Name     string          `json:"name,omitempty"`
	Type     sheaf.TokenType `json:"type"`
	Policies []string        `json:"policies,omitempty"`
	TTL      sheaf.Duration  `json:"ttl,omitempty"` // 0 does not expire
}

// PolicyRequest is a policy's content.
type PolicyRequest struct {
	Description string `json:"description,omitempty"`
	Rules       string `json:"rules"` // HCL
}

// NamespaceRequest is what is said of a namespace.
type NamespaceRequest struct {
	Description string `json:"description,omitempty"`
}

// Changed is the index of the log at which something is so.
type Changed struct {
	Index uint64 `json:"index"`
}

// ACLSelf is who a caller is. Without a Token it is anonymous.
type ACLSelf struct {
	Token    *sheaf.Token   `json:"token,omitempty"`
	Policies []sheaf.Policy `json:"policies"` // with their rules
}

// BootstrapACL makes the cluster's first management token; with "" its secret is made up.
// The second time it is a Conflict that says how to have it made again.
func (c *Client) BootstrapACL(ctx context.Context, secret string) (NewToken, error) {
	var out NewToken
	return out, c.send(ctx, http.MethodPost, "/v1/acl/bootstrap", url.Values{}, BootstrapRequest{secret}, &out)
}

// ACLSelf tells who the agent takes this client for.
func (c *Client) ACLSelf(ctx context.Context) (ACLSelf, error) {
	var out ACLSelf
	_, err := c.get(ctx, "/v1/acl/self", Read{}, &out)
	return out, err
}

// Policies lists policies without their rules, a page at a time.
func (c *Client) Policies(ctx context.Context, r Read) ([]sheaf.Policy, Meta, error) {
	var out []sheaf.Policy
	m, err := c.get(ctx, "/v1/acl/policies", r, &out)
	return out, m, err
}

// Policy gives a policy with its rules.
func (c *Client) Policy(ctx context.Context, name string) (sheaf.Policy, error) {
	var out sheaf.Policy
	_, err := c.get(ctx, "/v1/acl/policy/"+url.PathEscape(name), Read{}, &out)
	return out, err
}

// PutPolicy makes or replaces a policy.
func (c *Client) PutPolicy(ctx context.Context, name string, p PolicyRequest) error {
	return c.send(ctx, http.MethodPut, "/v1/acl/policy/"+url.PathEscape(name), url.Values{}, p, nil)
}

// DeletePolicy deletes a policy. Tokens that name it lose what it granted.
func (c *Client) DeletePolicy(ctx context.Context, name string) error {
	return c.send(ctx, http.MethodDelete, "/v1/acl/policy/"+url.PathEscape(name), url.Values{}, nil, nil)
}

// Tokens lists tokens without their secrets, a page at a time.
func (c *Client) Tokens(ctx context.Context, r Read) ([]sheaf.Token, Meta, error) {
	var out []sheaf.Token
	m, err := c.get(ctx, "/v1/acl/tokens", r, &out)
	return out, m, err
}

// Token gives a token without its secret.
func (c *Client) Token(ctx context.Context, accessor string) (sheaf.Token, error) {
	var out sheaf.Token
	_, err := c.get(ctx, "/v1/acl/token/"+url.PathEscape(accessor), Read{}, &out)
	return out, err
}

// CreateToken makes a token. Its secret is in the reply and nowhere else.
func (c *Client) CreateToken(ctx context.Context, t TokenRequest) (NewToken, error) {
	var out NewToken
	return out, c.send(ctx, http.MethodPost, "/v1/acl/tokens", url.Values{}, t, &out)
}

// DeleteToken deletes a token: requests that show it are refused from then on, and streams end.
func (c *Client) DeleteToken(ctx context.Context, accessor string) error {
	return c.send(ctx, http.MethodDelete, "/v1/acl/token/"+url.PathEscape(accessor), url.Values{}, nil, nil)
}

// Namespaces lists the namespaces that the caller may know of, a page at a time.
func (c *Client) Namespaces(ctx context.Context, r Read) ([]sheaf.Namespace, Meta, error) {
	var out []sheaf.Namespace
	m, err := c.get(ctx, "/v1/namespaces", r, &out)
	return out, m, err
}

// Namespace gives one namespace.
func (c *Client) Namespace(ctx context.Context, name string) (sheaf.Namespace, error) {
	var out sheaf.Namespace
	_, err := c.get(ctx, "/v1/namespace/"+url.PathEscape(name), Read{}, &out)
	return out, err
}

// PutNamespace makes or changes a namespace.
func (c *Client) PutNamespace(ctx context.Context, name string, n NamespaceRequest) error {
	return c.send(ctx, http.MethodPut, "/v1/namespace/"+url.PathEscape(name), url.Values{}, n, nil)
}

// DeleteNamespace deletes a namespace with its secrets and the runs in it that are over.
// Conflict names one that is not.
func (c *Client) DeleteNamespace(ctx context.Context, name string) error {
	return c.send(ctx, http.MethodDelete, "/v1/namespace/"+url.PathEscape(name), url.Values{}, nil, nil)
}
