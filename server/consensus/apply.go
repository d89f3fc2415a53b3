package consensus

import (
	"context"
	"errors"
	"time"

	"github.com/hashicorp/raft"

	"github.com/sheaf-run/agent/sheaf"
)

// enqueueTimeout bounds how long a command waits to be taken up: without a
// quorum a write must fail within 5 s.
const enqueueTimeout = 4 * time.Second

// LeaderError says that another server leads. It is the cause of errors of
// class NotLeader.
type LeaderError struct {
	Address string // host:port of the leader's RPC; empty while there is none
}

// Error names the leader.
func (e *LeaderError) Error() string {
	if e.Address == "" {
		return "no leader is known"
	}
	return "the leader is at " + e.Address
}

// Apply appends a command, at most as large as its kind allows, and waits until
// it is committed and applied here. The command must not be changed afterwards. Errors are of class
// NotLeader (nothing happened; see LeaderError), Unavailable or TimedOut (it may yet be applied).
func (n *Node) Apply(ctx context.Context, command []byte) (reply any, index uint64, err error) {
	r, err := n.leading()
	if err != nil {
		return nil, 0, err
	}
	f := r.Apply(command, enqueueTimeout)
	if err := n.await(ctx, f); err != nil {
		return nil, 0, err
	}
	reply = f.Response()
	if h, ok := reply.(haltedReply); ok {
		return nil, 0, &sheaf.Error{Class: sheaf.Internal, Msg: "this server has halted", Err: h.err}
	}
	return reply, f.Index(), nil
}

// Barrier returns once everything that was committed before is applied here.
func (n *Node) Barrier(ctx context.Context) error {
	r, err := n.leading()
	if err != nil {
		return err
	}
	return n.await(ctx, r.Barrier(enqueueTimeout))
}

// VerifyLeader returns once a quorum has confirmed that this server still leads.
func (n *Node) VerifyLeader(ctx context.Context) error {
	r, err := n.leading()
	if err != nil {
		return err
	}
	return n.await(ctx, r.VerifyLeader())
}

func (n *Node) leading() (*raft.Raft, error) {
	r := n.raft.Load()
	if r == nil {
		return nil, &sheaf.Error{Class: sheaf.Unavailable, Msg: "this server is starting"}
	}
	if r.State() != raft.Leader {
		return nil, n.NotLeader()
	}
	return r, nil
}

// NotLeader is the error of a write that came to the wrong server: of class
// NotLeader where the leader is known, else Unavailable.
func (n *Node) NotLeader() error {
	address, self := n.Leader()
	if self {
		address = ""
	}
	class, msg := sheaf.NotLeader, "this server does not lead"
	if address == "" {
		class, msg = sheaf.Unavailable, "the servers have no leader"
	}
	return &sheaf.Error{Class: class, Msg: msg, Err: &LeaderError{address}, Hint: "try again in a moment"}
}

// await waits for raft's answer, no longer than ctx.
func (n *Node) await(ctx context.Context, f raft.Future) error {
	err := ctx.Err()
	if err == nil {
		if ctx.Done() == nil {
			err = f.Error()
		} else {
			done := make(chan error, 1)
			go func() { done <- f.Error() }()
			select {
			case err = <-done:
			case <-ctx.Done():
				err = ctx.Err()
			}
		}
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, raft.ErrNotLeader):
		return n.NotLeader()
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), errors.Is(err, raft.ErrEnqueueTimeout):
		return tookTooLong(err)
	}
	return &sheaf.Error{Class: sheaf.Unavailable, Msg: "the servers could not agree", Err: err, Hint: "it may have been done: asking again is safe"}
}

func tookTooLong(err error) error {
	return &sheaf.Error{Class: sheaf.TimedOut, Msg: "the servers did not answer in time", Err: err, Hint: "it may have been done: asking again is safe"}
}

// Leader is the address of the leader's RPC, empty when none is known, and
// whether it is this server.
func (n *Node) Leader() (address string, self bool) {
	r := n.raft.Load()
	if r == nil {
		return "", false
	}
	a, id := r.LeaderWithID()
	return string(a), string(id) == n.config.Identity.Server && a != ""
}

// LastContact is how long ago the leader was heard of; 0 on the leader.
func (n *Node) LastContact() time.Duration {
	r := n.raft.Load()
	if r == nil || r.State() == raft.Leader {
		return 0
	}
	last := r.LastContact()
	if last.IsZero() {
		return -1
	}
	return time.Since(last)
}

// Peers are the servers of the newest configuration, this one included.
func (n *Node) Peers() []Peer {
	r := n.raft.Load()
	if r == nil {
		return nil
	}
	f := r.GetConfiguration()
	if f.Error() != nil {
		return nil
	}
	return peersOf(f.Configuration())
}

func peersOf(c raft.Configuration) []Peer {
	var peers []Peer
	for _, s := range c.Servers {
		peers = append(peers, Peer{ID: string(s.ID), Address: string(s.Address), Voter: s.Suffrage == raft.Voter})
	}
	return peers
}
