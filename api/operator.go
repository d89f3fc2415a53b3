package api

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/sheaf-run/agent/sheaf"
)

// Server is one server of the region.
type Server struct {
	ID      string `json:"id"`
	Name    string `json:"name,omitempty"` // of its agent; empty where gossip does not know it
	Version string `json:"version,omitempty"`
	Address string `json:"address"` // host:port of its RPC listener
	HTTP    string `json:"http,omitempty"`
	Leader  bool   `json:"leader"`
	Voter   bool   `json:"voter"`
	Alive   bool   `json:"alive"` // as gossip says

	Health *ServerHealth `json:"health,omitempty"` // as the leader sees it; nil where it was not asked
}

// ServerHealth is how a server does.
type ServerHealth struct {
	Healthy     bool           `json:"healthy"`
	StableSince time.Time      `json:"stable_since"` // when healthy last changed
	LastContact sheaf.Duration `json:"last_contact"` // since it heard of the leader; negative never
	LastTerm    uint64         `json:"last_term"`
	LastIndex   uint64         `json:"last_index"`
}

// RemovePeer names a server to take out of the configuration.
type RemovePeer struct {
	ID    string `json:"id" maxLength:"128"`
	Force bool   `json:"force,omitempty"` // even one that gossip knows to be alive
}

// TransferLeadership names the voter that is to lead; without an ID it is the one that is furthest.
type TransferLeadership struct {
	ID string `json:"id,omitempty" maxLength:"128"`
}

// AutopilotConfig are the settings, and the index that set them: 0 are the defaults.
type AutopilotConfig struct {
	sheaf.Autopilot
	ModifyIndex uint64 `json:"modify_index"`
}

// AutopilotState is how the servers do.
type AutopilotState struct {
	Healthy          bool     `json:"healthy"`           // all voters are
	FailureTolerance int      `json:"failure_tolerance"` // servers that may fail while a quorum is left
	Leader           string   `json:"leader"`            // ID
	Servers          []Server `json:"servers"`
}

// SnapshotInfo is what a saved snapshot holds.
type SnapshotInfo struct {
	Index   uint64          `json:"index"` // of the last entry in it
	Term    uint64          `json:"term"`
	Time    time.Time       `json:"time"` // cluster time
	Cluster string          `json:"cluster"`
	Region  string          `json:"region"`
	Runs    int             `json:"runs"`
	Nodes   int             `json:"nodes"`
	Bytes   int64           `json:"bytes"`
	Tables  []SnapshotTable `json:"tables"`
}

// SnapshotTable is one table in a snapshot.
type SnapshotTable struct {
	Name  string `json:"name"`
	Rows  int    `json:"rows"`
	Bytes int64  `json:"bytes"`
}

// RestoredSnapshot is what a snapshot that was restored holds.
type RestoredSnapshot struct {
	Index uint64 `json:"index"`
	Runs  int    `json:"runs"`
	Nodes int    `json:"nodes"`
}

// RaftPeers lists the servers. With stale the agent that answers says what it knows, without their health.
func (c *Client) RaftPeers(ctx context.Context, stale bool) ([]Server, error) {
	var out []Server
	_, err := c.get(ctx, "/v1/operator/raft/peers", Read{Stale: stale}, &out)
	return out, err
}

// RaftStats is what raft says of itself, on the server that answers.
func (c *Client) RaftStats(ctx context.Context) (map[string]string, error) {
	var out map[string]string
	_, err := c.get(ctx, "/v1/agent/raft", Read{}, &out)
	return out, err
}

// Settings is the configuration of the agent that answers, by the names in its files, without what is secret.
func (c *Client) Settings(ctx context.Context) (map[string]any, error) {
	var out map[string]any
	_, err := c.get(ctx, "/v1/agent/config", Read{}, &out)
	return out, err
}

// RemovePeer takes a server out of the configuration.
func (c *Client) RemovePeer(ctx context.Context, r RemovePeer) error {
	return c.send(ctx, http.MethodPost, "/v1/operator/raft/remove-peer", nil, r, nil)
}

// TransferLeadership makes another voter lead; with an empty ID any.
func (c *Client) TransferLeadership(ctx context.Context, id string) error {
	return c.send(ctx, http.MethodPost, "/v1/operator/raft/transfer-leadership", nil, TransferLeadership{id}, nil)
}

// AutopilotConfig reads autopilot's settings.
func (c *Client) AutopilotConfig(ctx context.Context) (AutopilotConfig, error) {
	var out AutopilotConfig
	_, err := c.get(ctx, "/v1/operator/autopilot/config", Read{}, &out)
	return out, err
}

// SetAutopilotConfig replaces autopilot's settings, where they are as ModifyIndex left them; 0 asks no such thing.
func (c *Client) SetAutopilotConfig(ctx context.Context, a AutopilotConfig) (AutopilotConfig, error) {
	var out AutopilotConfig
	err := c.send(ctx, http.MethodPut, "/v1/operator/autopilot/config", nil, a, &out)
	return out, err
}

// AutopilotState tells how the servers do.
func (c *Client) AutopilotState(ctx context.Context) (AutopilotState, error) {
	var out AutopilotState
	_, err := c.get(ctx, "/v1/operator/autopilot/state", Read{}, &out)
	return out, err
}

// Leave takes the agent that answers out of the cluster and ends it.
func (c *Client) Leave(ctx context.Context) error {
	return c.send(ctx, http.MethodPost, "/v1/agent/leave", nil, struct{}{}, nil)
}

// SaveSnapshot writes a snapshot of the state to w. It carries its own digest at its end.
func (c *Client) SaveSnapshot(ctx context.Context, w io.Writer) error {
	resp, err := c.do(ctx, http.MethodGet, "/v1/operator/snapshot", url.Values{}, nil, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(w, resp.Body); err != nil {
		return fmt.Errorf("receive the snapshot: %w", err)
	}
	return nil
}

// RestoreSnapshot makes a saved snapshot the state of all servers. One of
// another cluster is refused unless force is given.
func (c *Client) RestoreSnapshot(ctx context.Context, r io.Reader, force bool) (RestoredSnapshot, error) {
	var out RestoredSnapshot
	resp, err := c.do(ctx, http.MethodPut, "/v1/operator/snapshot", url.Values{"force": {strconv.FormatBool(force)}}, r, http.Header{"Content-Type": {"application/octet-stream"}})
	if err != nil {
		return out, err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&out); err != nil {
		return out, fmt.Errorf("read reply of restore: %w", err)
	}
	return out, nil
}

// Profile writes a profile of the agent that answers to w: goroutine, heap or, over some seconds, cpu.
func (c *Client) Profile(ctx context.Context, name string, seconds int, w io.Writer) error {
	resp, err := c.do(ctx, http.MethodGet, "/v1/agent/pprof/"+url.PathEscape(name), url.Values{"seconds": {strconv.Itoa(seconds)}}, nil, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(w, resp.Body)
	return err
}
