package client

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"

	"google.golang.org/grpc"

	"github.com/sheaf-run/agent/client/fingerprint"
	"github.com/sheaf-run/agent/client/worker"
	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/sheaf"
)

// clusterKey is where the checkpoint file keeps the cluster's ID.
const clusterKey = "cluster_id"

// handler speaks to the servers for the node: its worker answers for the
// executions, and this for the rest.
type handler struct {
	*worker.Worker
	client      *Client
	fingerprint fingerprint.Fingerprint
	drivers     []sheaf.NodeDriver // set before the session begins
}

// Node describes the node as the servers are to see it.
func (h *handler) Node() ([]byte, error) {
	c := h.client.cfg
	n := sheaf.Node{
		ID: h.client.id, Name: c.Name, Region: c.Region, Datacenter: c.Datacenter, Class: c.Class, Address: c.Address,
		Status: sheaf.NodeReady, Eligible: true, Resources: h.fingerprint.Resources, Attributes: h.fingerprint.Attributes,
		Drivers: h.drivers,
	}
	n.Sources = c.readable()
	b, err := json.Marshal(n)
	if err != nil {
		return nil, fmt.Errorf("describe the node: %w", err)
	}
	return b, nil
}

// Receive passes the leader's message on. Its first one is the welcome: the node is known and may get work.
func (h *handler) Receive(ctx context.Context, m *wire.FromServer) error {
	h.client.welcomed.Do(func() { close(h.client.ready) })
	return h.Worker.Receive(ctx, m)
}

// ClusterID is that of the cluster the node belongs to.
func (h *handler) ClusterID() string {
	id, err := h.client.file.Value(clusterKey)
	if err != nil {
		h.client.cfg.Logger.Error("cluster's ID not read", "error", err)
	}
	return id
}

// Joined keeps the cluster's ID. A node never changes its cluster: what it
// keeps belongs to runs of the old one.
func (h *handler) Joined(id string) error {
	switch old := h.ClusterID(); old {
	case id:
		return nil
	case "":
		return h.client.file.SetValue(clusterKey, id)
	default:
		return &sheaf.Error{
			Class: sheaf.Conflict, Msg: fmt.Sprintf("the data directory %s belongs to cluster %s, and the servers are of cluster %s", h.client.dir, old, id),
			Hint: "use the servers of its cluster, or an empty data directory",
		}
	}
}

// peers keeps connections to other nodes, one each.
type peers struct {
	cfg Config

	mu    sync.Mutex
	conns map[string]*grpc.ClientConn // by address
}

func newPeers(cfg Config) *peers { return &peers{cfg: cfg, conns: map[string]*grpc.ClientConn{}} }

// node is the service of another node.
func (p *peers) node(id sheaf.NodeID) (wire.NodesClient, func(), error) {
	address, ok := p.cfg.Discovery.NodeAddress(id)
	if !ok {
		return nil, nil, &sheaf.Error{Class: sheaf.Unavailable, Msg: fmt.Sprintf("node %s is not reachable: no member of the region answers for it", id)}
	}
	client, err := p.at(address)
	return client, func() {}, err
}

// at is the service of the node at an address.
func (p *peers) at(address string) (wire.NodesClient, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	conn := p.conns[address]
	if conn == nil {
		var err error
		if conn, err = p.cfg.Dialer.Node(address, ""); err != nil {
			return nil, err
		}
		p.conns[address] = conn
	}
	return wire.NewNodesClient(conn), nil
}

func (p *peers) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		_ = c.Close()
	}
}
