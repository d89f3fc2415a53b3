package rpc

import (
	"context"
	"errors"
	"fmt"

	"github.com/sheaf-run/agent/internal/seal"
	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/sheaf"
)

// Keys gives the keys of secrets as they are now.
type Keys func() (*seal.Keys, error)

// ErrNoKeys is what servers say that were given no key for secrets.
var ErrNoKeys = &sheaf.Error{
	Class: sheaf.Unavailable, Field: "server.secrets_key_file", Msg: "this server has no key for secrets",
	Hint: `make one with "agent secret keygen", put it into a file of mode 0600 on every server, and name that by server { secrets_key_file = "…" }`,
}

// SecretLabel is what a secret is sealed for: nothing sealed under one name opens under another.
func SecretLabel(namespace, name string) string { return namespace + "\x00" + name }

// ReadSecrets gives a node the secrets of a run that it has executions of.
func (s *Service) ReadSecrets(ctx context.Context, req *wire.ReadSecretsRequest) (*wire.ReadSecretsResponse, error) {
	resp, err := s.readSecrets(ctx, req)
	return resp, unaryStatus(ctx, err)
}

func (s *Service) readSecrets(ctx context.Context, req *wire.ReadSecretsRequest) (*wire.ReadSecretsResponse, error) {
	h, err := s.leading()
	if err != nil {
		return nil, err
	}
	// What was taken away a moment ago, by another leader perhaps, is not given out.
	if err := h.verify.verified(ctx); err != nil {
		return nil, err
	}
	snap := s.store.Snapshot()
	r, err := heldRun(ctx, snap, req)
	if err != nil {
		return nil, err
	}
	if name := snap.MissingSecret(r.Job); name != "" {
		return nil, &sheaf.Error{Class: sheaf.NotFound, Msg: fmt.Sprintf("namespace %q has no secret %q for job %q any more", r.Job.Namespace, name, r.Job.Name)}
	}
	keys, err := s.keys()
	if err != nil {
		return nil, err
	}
	resp := &wire.ReadSecretsResponse{}
	for _, name := range r.Job.SecretNames() {
		x := snap.Secret(r.Job.Namespace, name)
		value, err := keys.Open(SecretLabel(x.Namespace, x.Name), x.Sealed)
		if errors.Is(err, seal.ErrNoKey) {
			return nil, &sheaf.Error{Class: sheaf.Unavailable, Field: "server.secrets_key_file", Msg: fmt.Sprintf("this server cannot open secret %q", name), Err: err, Hint: "give every server the same keys"}
		}
		if err != nil {
			return nil, fmt.Errorf("open secret %q: %w", name, err)
		}
		resp.Secrets = append(resp.Secrets, &wire.SecretValue{Name: name, Version: x.Version, Value: value})
	}
	return resp, nil
}

// heldRun is the run that is asked about, if the caller is the node it says it is, in
// the session it says, and has executions of the run.
func heldRun(ctx context.Context, snap *state.Snapshot, req *wire.ReadSecretsRequest) (*state.Run, error) {
	if err := speaksFor(ctx, snap, sheaf.NodeID(req.GetNode())); err != nil {
		return nil, err
	}
	n := snap.Node(sheaf.NodeID(req.GetNode()))
	if n == nil || n.Session != req.GetSession() || n.Status == sheaf.NodeDown {
		return nil, &sheaf.Error{Class: sheaf.Unavailable, Msg: fmt.Sprintf("session %d of node %s is over", req.GetSession(), req.GetNode())}
	}
	r := snap.Run(sheaf.RunID(req.GetRun()))
	if r == nil || snap.AssignedOn(r, n.Number) == 0 {
		return nil, &sheaf.Error{Class: sheaf.Unavailable, Msg: fmt.Sprintf("node %s has nothing of run %s", n.Name, req.GetRun())}
	}
	return r, nil
}
