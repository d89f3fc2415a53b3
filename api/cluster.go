package api

import (
	"context"
	"net/http"
	"net/url"

	"github.com/sheaf-run/agent/sheaf"
)

// Nodes lists the clients, a page at a time.
func (c *Client) Nodes(ctx context.Context, r Read) ([]sheaf.Node, Meta, error) {
	var out []sheaf.Node
	m, err := c.get(ctx, "/v1/nodes", r, &out)
	return out, m, err
}

// Node gives one client, by ID, unique prefix of one, or name.
func (c *Client) Node(ctx context.Context, node string, r Read) (sheaf.Node, Meta, error) {
	var out sheaf.Node
	m, err := c.get(ctx, "/v1/node/"+url.PathEscape(node), r, &out)
	return out, m, err
}

// Members lists the agents that gossip knows.
func (c *Client) Members(ctx context.Context) ([]Member, error) {
	var out []Member
	_, err := c.get(ctx, "/v1/agent/members", Read{}, &out)
	return out, err
}

// Self describes the agent that answers.
func (c *Client) Self(ctx context.Context) (Self, error) {
	var out Self
	_, err := c.get(ctx, "/v1/agent/self", Read{}, &out)
	return out, err
}

// State is what the server that answers has applied. Two servers at the same index have the same digest.
func (c *Client) State(ctx context.Context) (State, error) {
	var out State
	_, err := c.get(ctx, "/v1/agent/state", Read{}, &out)
	return out, err
}

// Health asks the agent how it is.
func (c *Client) Health(ctx context.Context) (Health, error) {
	var out Health
	_, err := c.get(ctx, "/v1/agent/health", Read{}, &out)
	return out, err
}

// Leader is the RPC address of the region's leader, "" when there is none.
func (c *Client) Leader(ctx context.Context) (string, error) {
	var out string
	_, err := c.get(ctx, "/v1/status/leader", Read{}, &out)
	return out, err
}

// DrainNode begins to empty a node, gives the emptying another deadline, or cancels it.
func (c *Client) DrainNode(ctx context.Context, node string, req DrainRequest) (sheaf.DrainProgress, error) {
	var out sheaf.DrainProgress
	return out, c.send(ctx, http.MethodPost, "/v1/node/"+url.PathEscape(node)+"/drain", url.Values{}, req, &out)
}

// DrainProgress says how far the emptying of a node is.
func (c *Client) DrainProgress(ctx context.Context, node string, r Read) (sheaf.DrainProgress, Meta, error) {
	var out sheaf.DrainProgress
	m, err := c.get(ctx, "/v1/node/"+url.PathEscape(node)+"/drain", r, &out)
	return out, m, err
}

// SetEligibility says whether a node gets new work.
func (c *Client) SetEligibility(ctx context.Context, node string, eligible bool) (sheaf.Node, error) {
	var out sheaf.Node
	return out, c.send(ctx, http.MethodPost, "/v1/node/"+url.PathEscape(node)+"/eligibility", url.Values{}, EligibilityRequest{eligible}, &out)
}

// PurgeNode forgets a node that is down; with force although outputs lie only there.
func (c *Client) PurgeNode(ctx context.Context, node string, force bool) (sheaf.Node, error) {
	q := url.Values{}
	if force {
		q.Set("force", "true")
	}
	var out sheaf.Node
	return out, c.send(ctx, http.MethodDelete, "/v1/node/"+url.PathEscape(node), q, nil, &out)
}
