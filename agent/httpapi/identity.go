package httpapi

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/sheaf-run/agent/api"
	"github.com/sheaf-run/agent/internal/acl"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/sheaf"
)

// Bounds of what is remembered of callers.
const (
	// knownFor is how long an agent that is no server believes what a server said of a token.
	knownFor = 30 * time.Second
	// maxKnown is how many tokens that is remembered of, and how many different sets of
	// policies are kept joined. Beyond it all are forgotten.
	maxKnown = 1024
	// askTimeout bounds asking a server for a token.
	askTimeout = 5 * time.Second
	// maxSelf bounds what a server says of a token: 64 policies of 48 KiB.
	maxSelf = 8 << 20
	// maxTokenLen is longer than any secret; more is not hashed.
	maxTokenLen = 256
)

// caller is who sent a request.
type caller struct {
	acl       *acl.ACL
	rights    string // names what the ACL was made of: the same is the same ACL
	anonymous bool
	token     *sheaf.Token
	policies  []sheaf.Policy
	until     time.Time // how long this may be believed where no server can be asked; zero on servers
}

func (c *caller) fresh() bool { return time.Now().Before(c.until) }

// identities remembers callers, and the ACLs of sets of policies.
type identities struct {
	mu     sync.Mutex
	joined map[string]*acl.ACL
	known  map[[32]byte]*caller // on agents that are no servers
}

// identify finds out who shows a secret. On a server that is what its state says; an agent that is none asks a
// server, and refuses where none answers.
func (a *API) identify(ctx context.Context, secret string) (*caller, error) {
	if len(secret) > maxTokenLen {
		return nil, unknownToken()
	}
	if a.Server == nil {
		return a.identifyAfar(ctx, secret)
	}
	snap := a.Server.Snapshot()
	if secret == "" {
		return a.withPolicies(snap, &caller{anonymous: true}, []string{sheaf.AnonymousPolicy})
	}
	t := snap.TokenBySecret(sha256.Sum256([]byte(secret)))
	if t == nil {
		return nil, unknownToken()
	}
	// Cluster time stands still while nothing happens.
	if t.Expired(max(snap.TimeMs(), time.Now().UnixMilli())) {
		return nil, &sheaf.Error{
			Class: sheaf.NoIdentity, Field: api.HeaderToken, Msg: "the token expired at " + time.UnixMilli(t.ExpiresMs).UTC().Format(time.RFC3339),
			Hint: "whoever may, makes another with `agent acl token create`",
		}
	}
	show := t.Show()
	if t.Management {
		return &caller{acl: acl.Management, rights: "all", token: &show}, nil
	}
	return a.withPolicies(snap, &caller{token: &show}, t.Policies)
}

func unknownToken() error {
	return &sheaf.Error{Class: sheaf.NoIdentity, Field: api.HeaderToken, Msg: "the token is not known", Hint: "it may have been deleted or be another cluster's: look at SHEAF_TOKEN, -token and the file token in the configuration folder"}
}

// withPolicies completes a caller who has these policies, as far as they exist.
func (a *API) withPolicies(snap *state.Snapshot, c *caller, names []string) (*caller, error) {
	c.policies = []sheaf.Policy{}
	for _, name := range names {
		if p := snap.Policy(name); p != nil {
			c.policies = append(c.policies, showPolicy(p))
		}
	}
	var err error
	c.acl, c.rights, err = a.ids.join(c.policies)
	return c, err
}

// join gives the ACL of policies. One that cannot be read makes it fail: leaving it out might leave out a deny.
func (x *identities) join(policies []sheaf.Policy) (*acl.ACL, string, error) {
	var b strings.Builder
	for _, p := range policies {
		fmt.Fprintf(&b, "%s@%d ", p.Name, p.Modified)
	}
	key := b.String()
	x.mu.Lock()
	defer x.mu.Unlock()
	if got := x.joined[key]; got != nil {
		return got, key, nil
	}
	parsed := make([]*acl.Policy, 0, len(policies))
	for _, p := range policies {
		one, err := acl.Parse(p.Name, []byte(p.Rules))
		if err != nil {
			return nil, "", &sheaf.Error{Class: sheaf.Denied, Field: api.HeaderToken, Msg: fmt.Sprintf("policy %q of this token cannot be read by this version", p.Name), Err: err, Hint: "write it again with `agent acl policy apply`"}
		}
		parsed = append(parsed, one)
	}
	if x.joined == nil || len(x.joined) >= maxKnown {
		x.joined = map[string]*acl.ACL{}
	}
	x.joined[key] = acl.Join(parsed...)
	return x.joined[key], key, nil
}

func (x *identities) recall(key [32]byte) *caller {
	x.mu.Lock()
	defer x.mu.Unlock()
	if c := x.known[key]; c != nil && c.fresh() {
		return c
	}
	return nil
}

func (x *identities) remember(key [32]byte, c *caller) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.known == nil || len(x.known) >= maxKnown {
		x.known = map[[32]byte]*caller{}
	}
	x.known[key] = c
}

// identifyAfar asks a server who shows a secret.
func (a *API) identifyAfar(ctx context.Context, secret string) (*caller, error) {
	key := sha256.Sum256([]byte(secret))
	if c := a.ids.recall(key); c != nil {
		return c, nil
	}
	self, err := a.askSelf(ctx, secret)
	if err != nil {
		return nil, err
	}
	c := &caller{token: self.Token, policies: self.Policies, anonymous: self.Token == nil, until: time.Now().Add(knownFor)}
	if self.Token != nil && self.Token.Type == sheaf.TokenManagement {
		c.acl, c.rights = acl.Management, "all"
	} else if c.acl, c.rights, err = a.ids.join(self.Policies); err != nil {
		return nil, err
	}
	if self.Token != nil && self.Token.Expires != nil && self.Token.Expires.Before(c.until) {
		c.until = *self.Token.Expires
	}
	a.ids.remember(key, c)
	return c, nil
}

func (a *API) askSelf(ctx context.Context, secret string) (*api.ACLSelf, error) {
	refuse := func(err error) (*api.ACLSelf, error) {
		return nil, &sheaf.Error{Class: sheaf.Unavailable, Msg: "no server could be asked who this is", Err: err, Hint: "try again; without a server an agent lets nobody in"}
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://server/v1/acl/self", nil)
	if err != nil {
		return refuse(err)
	}
	if secret != "" {
		req.Header.Set(api.HeaderToken, secret)
	}
	resp, err := (&upstream{api: a}).RoundTrip(req)
	if err != nil {
		return refuse(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxSelf))
	if err != nil {
		return refuse(err)
	}
	if resp.StatusCode != http.StatusOK {
		said := new(sheaf.Error)
		if json.Unmarshal(body, said) == nil && resp.StatusCode == http.StatusUnauthorized {
			return nil, said
		}
		return refuse(errors.New("it answered " + resp.Status + ": " + said.Msg))
	}
	self := new(api.ACLSelf)
	if err := json.Unmarshal(body, self); err != nil {
		return refuse(err)
	}
	return self, nil
}
