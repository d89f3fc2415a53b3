package consensus

import (
	"context"

	"github.com/hashicorp/raft"
)

// eager is the transport of a lone voter. The first message that raft gets from it is an
// order to stand for election, as a leader gives to its successor: a voter without others has nobody to wait for.
type eager struct {
	*raft.NetworkTransport
	messages chan raft.RPC
}

func newEager(t *raft.NetworkTransport) *eager {
	return &eager{t, make(chan raft.RPC)}
}

// Consumer implements raft.Transport.
func (e *eager) Consumer() <-chan raft.RPC { return e.messages }

// run gives the order, then passes on what comes, until ctx ends.
func (e *eager) run(ctx context.Context) error {
	next := raft.RPC{
		Command:  &raft.TimeoutNowRequest{RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax}},
		RespChan: make(chan raft.RPCResponse, 1),
	}
	for {
		select {
		case e.messages <- next:
		case <-ctx.Done():
			return ctx.Err()
		}
		select {
		case next = <-e.NetworkTransport.Consumer():
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
