package api

import (
	"context"
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
