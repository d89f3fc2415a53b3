package server

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/sheaf-run/agent/internal/acl"
	"github.com/sheaf-run/agent/server/fsm"
	"github.com/sheaf-run/agent/sheaf"
)

// Access is what the HTTP layer may ask about who may do what. All writes are for the leader.
type Access interface {
	// BootstrapACL makes the cluster's first management token, once; with "" its secret is made
	// up. Once it was made, Conflict says how to have it made again.
	BootstrapACL(ctx context.Context, secret string) (sheaf.Token, string, error)
	// PutPolicy makes or replaces a policy. Its rules must parse.
	PutPolicy(ctx context.Context, p sheaf.Policy) (index uint64, err error)
	DeletePolicy(ctx context.Context, name string) (index uint64, err error)
	// CreateToken makes a token of this name, type and these policies that lives for ttl, 0 for
	// ever, and gives the secret, which nobody can learn again.
	CreateToken(ctx context.Context, t sheaf.Token, ttl time.Duration) (sheaf.Token, string, error)
	DeleteToken(ctx context.Context, accessor string) (index uint64, err error)
	PutNamespace(ctx context.Context, n sheaf.Namespace) (index uint64, err error)
	// DeleteNamespace deletes a namespace with its secrets and the runs that are over;
	// Conflict names one that is not.
	DeleteNamespace(ctx context.Context, name string) (index uint64, err error)
}

const (
	// secretPrefix lets scanners of sources and logs find secrets that lie about.
	secretPrefix = "sheaf-"
	secretBytes  = 32 // of randomness
	// minSecret is the shortest secret that an operator may choose: a UUID's length.
	minSecret = 36
	maxSecret = 128
	// MaxTokenTTL is the longest that a token that expires may live.
	MaxTokenTTL = 10 * 365 * 24 * time.Hour
	// resetFile holds, below the server's data directory, the index that lets the first token be made again.
	resetFile = "acl-bootstrap-reset"
	resetMost = 64 // bytes that are read of it
)

func newSecret() string {
	var b [secretBytes]byte
	_, _ = rand.Read(b[:]) // never fails
	return secretPrefix + base64.RawURLEncoding.EncodeToString(b[:])
}

func newAccessor() string {
	var b [10]byte
	_, _ = rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// BootstrapACL implements Access.
func (s *Server) BootstrapACL(ctx context.Context, secret string) (sheaf.Token, string, error) {
	if secret == "" {
		secret = newSecret()
	} else if err := checkSecret(secret); err != nil {
		return sheaf.Token{}, "", err
	}
	reset, err := s.resetIndex()
	if err != nil {
		return sheaf.Token{}, "", err
	}
	w := &fsm.WriteACL{Bootstrap: true, ResetIndex: reset}
	t, err := s.makeToken(ctx, w, &fsm.ACLToken{Name: "the first token", Management: true}, secret)
	if err != nil {
		return sheaf.Token{}, "", err
	}
	if reset != 0 {
		if err := os.Remove(filepath.Join(s.config.DataDir, resetFile)); err != nil {
			s.config.Logger.Warn("delete the file that let the first token be made again", "error", err)
		}
	}
	s.config.Logger.Info("made the first management token", "accessor", t.Accessor, "again", reset != 0)
	return t, secret, nil
}

func checkSecret(secret string) error {
	if len(secret) < minSecret || len(secret) > maxSecret {
		return &sheaf.Error{Class: sheaf.Invalid, Field: "secret", Msg: fmt.Sprintf("a secret of %d letters", len(secret)), Limit: fmt.Sprintf("%d to %d letters", minSecret, maxSecret), Hint: "leave it out to have one made"}
	}
	for _, c := range []byte(secret) {
		if c <= ' ' || c > '~' {
			return &sheaf.Error{Class: sheaf.Invalid, Field: "secret", Msg: "the secret has letters that cannot stand in a header", Hint: "use letters, digits and punctuation of ASCII"}
		}
	}
	return nil
}

// resetIndex is what an operator wrote into the reset file; 0 without one.
func (s *Server) resetIndex() (uint64, error) {
	if s.config.DataDir == "" {
		return 0, nil
	}
	f, err := os.Open(filepath.Join(s.config.DataDir, resetFile))
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read the reset index: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, resetMost))
	if err != nil {
		return 0, fmt.Errorf("read the reset index: %w", err)
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
	if err != nil {
		return 0, &sheaf.Error{Class: sheaf.Conflict, Field: resetFile, Msg: fmt.Sprintf("%s does not hold the reset index alone", f.Name()), Hint: "write the number into it that `agent acl bootstrap` tells"}
	}
	return n, nil
}

// makeToken adds a token to a change, has it decided, and gives the token.
func (s *Server) makeToken(ctx context.Context, w *fsm.WriteACL, t *fsm.ACLToken, secret string) (sheaf.Token, error) {
	d := sha256.Sum256([]byte(secret))
	t.Accessor, t.SecretSha256 = newAccessor(), d[:]
	w.PutTokens = []*fsm.ACLToken{t}
	if _, err := s.write(ctx, &fsm.Command{Body: &fsm.Command_WriteAcl{WriteAcl: w}}); err != nil {
		return sheaf.Token{}, err
	}
	got := s.store.Snapshot().Token(t.Accessor)
	if got == nil {
		return sheaf.Token{}, &sheaf.Error{Class: sheaf.Conflict, Msg: "the token was deleted as soon as it was made"}
	}
	return got.Show(), nil
}

// CreateToken implements Access.
func (s *Server) CreateToken(ctx context.Context, t sheaf.Token, ttl time.Duration) (sheaf.Token, string, error) {
	if t.Type != sheaf.TokenClient && t.Type != sheaf.TokenManagement {
		return sheaf.Token{}, "", &sheaf.Error{Class: sheaf.Invalid, Field: "type", Msg: fmt.Sprintf("there is no type of token %q", t.Type), Limit: "client or management"}
	}
	if ttl < 0 || ttl > MaxTokenTTL || ttl > 0 && ttl < time.Second {
		return sheaf.Token{}, "", &sheaf.Error{Class: sheaf.Invalid, Field: "ttl", Msg: fmt.Sprintf("a token's life of %v", ttl), Limit: fmt.Sprintf("1s to %v", MaxTokenTTL), Hint: "leave it out for a token that does not expire"}
	}
	c := &fsm.ACLToken{Name: t.Name, Management: t.Type == sheaf.TokenManagement, Policies: t.Policies}
	if ttl > 0 {
		c.ExpiresMs = max(time.Now().UnixMilli(), s.store.Snapshot().TimeMs()) + ttl.Milliseconds()
	}
	secret := newSecret()
	made, err := s.makeToken(ctx, &fsm.WriteACL{}, c, secret)
	if err != nil {
		return sheaf.Token{}, "", err
	}
	s.config.Logger.Info("made a token", "accessor", made.Accessor, "name", made.Name, "type", made.Type, "policies", made.Policies)
	return made, secret, nil
}

// DeleteToken implements Access.
func (s *Server) DeleteToken(ctx context.Context, accessor string) (uint64, error) {
	return s.write(ctx, &fsm.Command{Body: &fsm.Command_WriteAcl{WriteAcl: &fsm.WriteACL{DeleteTokens: []string{accessor}}}})
}

// PutPolicy implements Access.
func (s *Server) PutPolicy(ctx context.Context, p sheaf.Policy) (uint64, error) {
	if _, err := acl.Parse(p.Name, []byte(p.Rules)); err != nil {
		return 0, err
	}
	c := &fsm.ACLPolicy{Name: p.Name, Description: p.Description, Rules: p.Rules}
	return s.write(ctx, &fsm.Command{Body: &fsm.Command_WriteAcl{WriteAcl: &fsm.WriteACL{PutPolicies: []*fsm.ACLPolicy{c}}}})
}

// DeletePolicy implements Access.
func (s *Server) DeletePolicy(ctx context.Context, name string) (uint64, error) {
	return s.write(ctx, &fsm.Command{Body: &fsm.Command_WriteAcl{WriteAcl: &fsm.WriteACL{DeletePolicies: []string{name}}}})
}

// PutNamespace implements Access.
func (s *Server) PutNamespace(ctx context.Context, n sheaf.Namespace) (uint64, error) {
	return s.write(ctx, &fsm.Command{Body: &fsm.Command_WriteNamespace{WriteNamespace: &fsm.WriteNamespace{Name: n.Name, Description: n.Description}}})
}

// DeleteNamespace implements Access.
func (s *Server) DeleteNamespace(ctx context.Context, name string) (uint64, error) {
	return s.write(ctx, &fsm.Command{Body: &fsm.Command_WriteNamespace{WriteNamespace: &fsm.WriteNamespace{Name: name, Delete: true}}})
}

// write applies a command that concerns no run.
func (s *Server) write(ctx context.Context, c *fsm.Command) (uint64, error) {
	_, done, err := s.change(ctx, "", c)
	return done.Index, err
}
