package server

import (
	"context"
	"fmt"

	"github.com/sheaf-run/agent/internal/seal"
	"github.com/sheaf-run/agent/server/fsm"
	"github.com/sheaf-run/agent/server/rpc"
	"github.com/sheaf-run/agent/sheaf"
)

// keys are those of secrets, as the configuration gives them now.
func (s *Server) keys() (*seal.Keys, error) {
	if s.config.Keys == nil {
		return nil, rpc.ErrNoKeys
	}
	return s.config.Keys()
}

// PutSecret implements API. The value is sealed before it goes anywhere.
func (s *Server) PutSecret(ctx context.Context, namespace, name string, jobs []string, value sheaf.Secret) (sheaf.SecretStub, uint64, error) {
	if n := len(value.Reveal()); n == 0 || n > sheaf.MaxSecret {
		return sheaf.SecretStub{}, 0, &sheaf.Error{Class: sheaf.Invalid, Field: "value", Msg: fmt.Sprintf("the value of secret %q has %d bytes", name, n), Limit: fmt.Sprintf("1 to %d bytes", sheaf.MaxSecret), Hint: "keep large things where the task can fetch them, and the key to that here"}
	}
	if _, err := s.leads(); err != nil { // only the leader's key counts
		return sheaf.SecretStub{}, 0, err
	}
	keys, err := s.keys()
	if err != nil {
		return sheaf.SecretStub{}, 0, err
	}
	sealed := keys.Seal(rpc.SecretLabel(namespace, name), value.Reveal())
	return s.writeSecret(ctx, &fsm.WriteSecret{What: fsm.WriteSecret_WHAT_PUT, Namespace: namespace, Name: name, Jobs: jobs, Sealed: sealed})
}

// GrantSecret implements API.
func (s *Server) GrantSecret(ctx context.Context, namespace, name string, jobs []string) (sheaf.SecretStub, uint64, error) {
	return s.writeSecret(ctx, &fsm.WriteSecret{What: fsm.WriteSecret_WHAT_GRANT, Namespace: namespace, Name: name, Jobs: jobs})
}

// DeleteSecret implements API.
func (s *Server) DeleteSecret(ctx context.Context, namespace, name string) (uint64, error) {
	_, index, err := s.writeSecret(ctx, &fsm.WriteSecret{What: fsm.WriteSecret_WHAT_DELETE, Namespace: namespace, Name: name})
	return index, err
}

func (s *Server) writeSecret(ctx context.Context, c *fsm.WriteSecret) (sheaf.SecretStub, uint64, error) {
	_, done, err := s.change(ctx, "", &fsm.Command{Body: &fsm.Command_WriteSecret{WriteSecret: c}})
	if err != nil {
		return sheaf.SecretStub{}, 0, err
	}
	stub := sheaf.SecretStub{Namespace: c.Namespace, Name: c.Name}
	if x := s.store.Snapshot().Secret(c.Namespace, c.Name); x != nil {
		stub = x.Stub()
	}
	return stub, done.Index, nil
}

// ResealSecrets implements API. Once it has succeeded, older keys are needed by old snapshots and logs only.
func (s *Server) ResealSecrets(ctx context.Context) (resealed int, err error) {
	if _, err := s.leads(); err != nil {
		return 0, err
	}
	keys, err := s.keys()
	if err != nil {
		return 0, err
	}
	for x := range s.store.Snapshot().Secrets() {
		if seal.KeyOf(x.Sealed) == keys.Newest() {
			continue
		}
		label := rpc.SecretLabel(x.Namespace, x.Name)
		value, err := keys.Open(label, x.Sealed)
		if err != nil {
			return resealed, &sheaf.Error{Class: sheaf.Conflict, Field: "server.secrets_key_file", Msg: fmt.Sprintf("secret %q of namespace %q cannot be opened", x.Name, x.Namespace), Err: err, Hint: "give the server the key too that it was sealed with, or put the secret again"}
		}
		c := &fsm.WriteSecret{What: fsm.WriteSecret_WHAT_RESEAL, Namespace: x.Namespace, Name: x.Name, Version: x.Version, Sealed: keys.Seal(label, value)}
		switch _, _, err := s.writeSecret(ctx, c); sheaf.ClassOf(err) {
		case sheaf.Conflict, sheaf.NotFound: // put again or deleted meanwhile
		default:
			if err != nil {
				return resealed, err
			}
			resealed++
		}
	}
	return resealed, nil
}
