package api

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
)

// Regions lists the regions that the agent knows.
func (c *Client) Regions(ctx context.Context) ([]string, error) {
	var out []string
	_, err := c.get(ctx, "/v1/regions", Read{}, &out)
	return out, err
}

// Peers are the RPC addresses of the voters.
func (c *Client) Peers(ctx context.Context) ([]string, error) {
	var out []string
	_, err := c.get(ctx, "/v1/status/peers", Read{}, &out)
	return out, err
}

// Metrics opens the agent's metrics in Prometheus' text format. The caller closes it.
func (c *Client) Metrics(ctx context.Context) (io.ReadCloser, error) {
	return c.open(ctx, "/v1/metrics", nil)
}

// OpenAPI is the API's description, an OpenAPI document.
func (c *Client) OpenAPI(ctx context.Context) (json.RawMessage, error) {
	var out json.RawMessage
	_, err := c.get(ctx, "/v1/openapi.json", Read{}, &out)
	return out, err
}

// Alive fails unless the agent's process answers.
func (c *Client) Alive(ctx context.Context) error {
	return c.send(ctx, http.MethodGet, "/livez", url.Values{}, nil, nil)
}

// Ready fails, with the reasons, unless the agent can do its work.
func (c *Client) Ready(ctx context.Context) error {
	return c.send(ctx, http.MethodGet, "/readyz", url.Values{}, nil, nil)
}

// Grid gives one byte a partition: '0' plus the number of its state.
func (c *Client) Grid(ctx context.Context, run string, r Read) ([]byte, Meta, error) {
	resp, err := c.do(ctx, http.MethodGet, runPath(run, "grid"), r.values(), nil, nil)
	if err != nil {
		return nil, Meta{}, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return b, meta(resp.Header), err
}

// open gives a reply's body.
func (c *Client) open(ctx context.Context, path string, q url.Values) (io.ReadCloser, error) {
	if q == nil {
		q = url.Values{}
	}
	resp, err := c.do(ctx, http.MethodGet, path, q, nil, nil)
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}
