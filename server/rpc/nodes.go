package rpc

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"google.golang.org/grpc"

	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/sheaf"
)

// Nodes keeps one connection to each node that was asked for, for its own
// service: logs, records, outputs, previews.
type Nodes struct {
	dialer wire.Dialer

	mu     sync.Mutex
	conns  map[sheaf.NodeID]*nodeConn
	closed bool
}

type nodeConn struct {
	address string
	conn    *grpc.ClientConn
}

// NewNodes makes an empty pool.
func NewNodes(dialer wire.Dialer) *Nodes {
	return &Nodes{dialer: dialer, conns: map[sheaf.NodeID]*nodeConn{}}
}

// Client is the service of a node at its address of now. Connections are
// made with the first call; a call fails at once while the node cannot be reached.
func (p *Nodes) Client(n *sheaf.Node) (wire.NodesClient, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, &sheaf.Error{Class: sheaf.Unavailable, Msg: "this server is stopping"}
	}
	c := p.conns[n.ID]
	if c == nil || c.address != n.Address {
		if n.Address == "" {
			return nil, &sheaf.Error{Class: sheaf.Unavailable, Msg: fmt.Sprintf("node %s says no address", n.ID)}
		}
		conn, err := p.dialer.Node(n.Address, n.Name)
		if err != nil {
			return nil, fmt.Errorf("connect to node %s: %w", n.ID, err)
		}
		if c != nil {
			c.conn.Close()
		}
		c = &nodeConn{n.Address, conn}
		p.conns[n.ID] = c
	}
	return wire.NewNodesClient(c.conn), nil
}

// Run keeps the connections until ctx ends, then closes them.
func (p *Nodes) Run(ctx context.Context) error {
	<-ctx.Done()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	var err error
	for _, c := range p.conns {
		err = errors.Join(err, c.conn.Close())
	}
	return err
}
