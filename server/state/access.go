package state

import (
	"encoding/hex"
	"fmt"
	"iter"
	"time"

	"github.com/sheaf-run/agent/sheaf"
)

// Policy is a named list of what its holders may do. One in a snapshot never changes.
type Policy struct {
	Name        string `json:"name"`
	Description string `json:"description,omitempty"`
	Rules       string `json:"rules"` // HCL
	Modified    uint64 `json:"modified"`
}

// SecretDigest is the SHA-256 of a token's secret, all that is kept of it.
type SecretDigest [32]byte

// MarshalText writes hex.
func (d SecretDigest) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, d[:]), nil }

// UnmarshalText reads hex.
func (d *SecretDigest) UnmarshalText(b []byte) error {
	if hex.DecodedLen(len(b)) != len(d) {
		return fmt.Errorf("a digest of %d letters", len(b))
	}
	_, err := hex.Decode(d[:], b)
	return err
}

// Token is a token, without its secret. One in a snapshot never changes.
type Token struct {
	Accessor   string       `json:"accessor"`
	Name       string       `json:"name,omitempty"`
	Management bool         `json:"management,omitempty"`
	Policies   []string     `json:"policies,omitempty"`
	CreatedMs  int64        `json:"created"`           // cluster time
	ExpiresMs  int64        `json:"expires,omitempty"` // cluster time; 0 never
	Secret     SecretDigest `json:"secret"`
}

// Expired reports whether the token's time is over at nowMs.
func (t *Token) Expired(nowMs int64) bool { return t.ExpiresMs > 0 && t.ExpiresMs <= nowMs }

// Show is the token as the API shows it.
func (t *Token) Show() sheaf.Token {
	out := sheaf.Token{Accessor: t.Accessor, Name: t.Name, Type: sheaf.TokenClient, Policies: t.Policies, Created: time.UnixMilli(t.CreatedMs).UTC(), Expires: maybe(t.ExpiresMs)}
	if t.Management {
		out.Type = sheaf.TokenManagement
	}
	return out
}

// Namespace is what the log holds of a namespace. The default one need not be there to exist.
type Namespace struct {
	Name        string `json:"name"`
	Description string `json:"description,omitempty"`
	Modified    uint64 `json:"modified"`
}

// ACLBootstrap is the index at which the first management token was made, for the last time; 0 before.
func (s *Snapshot) ACLBootstrap() uint64 { return s.meta.ACLBootstrap }

// Policy is the policy of that name, or nil.
func (s *Snapshot) Policy(name string) *Policy {
	return first[*Policy](s, tablePolicies, byID, nameKey(name))
}

// Policies are all, by name.
func (s *Snapshot) Policies() iter.Seq[*Policy] { return scan[*Policy](s, tablePolicies, byID, nil) }

// Token is the token with that accessor, or nil.
func (s *Snapshot) Token(accessor string) *Token {
	return first[*Token](s, tableTokens, byID, nameKey(accessor))
}

// TokenBySecret is the token whose secret has that digest, or nil. Looking up a digest tells
// nothing of secrets that are near, however long it takes.
func (s *Snapshot) TokenBySecret(d SecretDigest) *Token {
	return first[*Token](s, tableTokens, bySecret, d[:])
}

// Tokens are all, by accessor, those that have expired included until they are reaped.
func (s *Snapshot) Tokens() iter.Seq[*Token] { return scan[*Token](s, tableTokens, byID, nil) }

// Namespace is the namespace of that name, or nil. The default one is always there.
func (s *Snapshot) Namespace(name string) *Namespace {
	n := first[*Namespace](s, tableNamespaces, byID, nameKey(name))
	if n == nil && name == sheaf.DefaultNamespace {
		return defaultNamespace
	}
	return n
}

// Namespaces are all, by name, the default one among them.
func (s *Snapshot) Namespaces() iter.Seq[*Namespace] {
	return func(yield func(*Namespace) bool) {
		passed := false
		for n := range scan[*Namespace](s, tableNamespaces, byID, nil) {
			if !passed && n.Name >= sheaf.DefaultNamespace {
				passed = true
				if n.Name != sheaf.DefaultNamespace && !yield(defaultNamespace) {
					return
				}
			}
			if !yield(n) {
				return
			}
		}
		if !passed {
			yield(defaultNamespace)
		}
	}
}

var defaultNamespace = &Namespace{Name: sheaf.DefaultNamespace, Description: "where jobs go that name no other"}

// WatchTokens is closed when any token changes.
func (s *Snapshot) WatchTokens() <-chan struct{} { return s.watch(tableTokens) }

// WatchPolicies is closed when any policy changes.
func (s *Snapshot) WatchPolicies() <-chan struct{} { return s.watch(tablePolicies) }

// WatchNamespaces is closed when any namespace changes.
func (s *Snapshot) WatchNamespaces() <-chan struct{} { return s.watch(tableNamespaces) }

// ACLBootstrap is that of the snapshot, within the transaction.
func (t *Txn) ACLBootstrap() uint64 { return t.meta.ACLBootstrap }

// SetACLBootstrap notes that this entry made the first management token.
func (t *Txn) SetACLBootstrap() { t.meta.ACLBootstrap = t.meta.Index }

// Policy is a policy for reading, or nil.
func (t *Txn) Policy(name string) *Policy {
	return firstIn[*Policy](t, tablePolicies, byID, nameKey(name))
}

// Policies is how many there are.
func (t *Txn) Policies() int { return t.count(tablePolicies) }

// PutPolicy stores p, which must not be changed from here on.
func (t *Txn) PutPolicy(p *Policy) {
	p.Modified = t.meta.Index
	must(t.mem.Insert(tablePolicies, p))
}

// DeletePolicy removes a policy.
func (t *Txn) DeletePolicy(p *Policy) { must(t.mem.Delete(tablePolicies, p)) }

// Token is a token for reading, or nil.
func (t *Txn) Token(accessor string) *Token {
	return firstIn[*Token](t, tableTokens, byID, nameKey(accessor))
}

// TokenBySecret is a token for reading, or nil.
func (t *Txn) TokenBySecret(d SecretDigest) *Token {
	return firstIn[*Token](t, tableTokens, bySecret, d[:])
}

// Tokens are all, by accessor.
func (t *Txn) Tokens() []*Token {
	it, err := t.mem.Get(tableTokens, byID+"_prefix", []byte(nil))
	must(err)
	var all []*Token
	for row := it.Next(); row != nil; row = it.Next() {
		all = append(all, row.(*Token))
	}
	return all
}

// PutToken stores x, which must not be changed from here on.
func (t *Txn) PutToken(x *Token) { must(t.mem.Insert(tableTokens, x)) }

// DeleteToken removes a token.
func (t *Txn) DeleteToken(x *Token) { must(t.mem.Delete(tableTokens, x)) }

// Namespace is a namespace for reading, or nil. The default one is always there.
func (t *Txn) Namespace(name string) *Namespace {
	n := firstIn[*Namespace](t, tableNamespaces, byID, nameKey(name))
	if n == nil && name == sheaf.DefaultNamespace {
		return defaultNamespace
	}
	return n
}

// Namespaces is how many there are, beside the default one.
func (t *Txn) Namespaces() int { return t.count(tableNamespaces) }

// PutNamespace stores n, which must not be changed from here on.
func (t *Txn) PutNamespace(n *Namespace) {
	n.Modified = t.meta.Index
	must(t.mem.Insert(tableNamespaces, n))
}

// DeleteNamespace removes a namespace.
func (t *Txn) DeleteNamespace(n *Namespace) { must(t.mem.Delete(tableNamespaces, n)) }

// RunsIn are the IDs of the runs in a namespace, by job and age.
func (t *Txn) RunsIn(namespace string) []sheaf.RunID {
	it, err := t.mem.Get(tableRuns, byJob+"_prefix", nameKey(namespace))
	must(err)
	var ids []sheaf.RunID
	for row := it.Next(); row != nil; row = it.Next() {
		ids = append(ids, row.(*Run).ID)
	}
	return ids
}

func (t *Txn) count(table string) (n int) {
	it, err := t.mem.Get(table, byID+"_prefix", []byte(nil))
	must(err)
	for it.Next() != nil {
		n++
	}
	return n
}

func firstIn[T any](t *Txn, table, index string, key []byte) T {
	row, err := t.mem.First(table, index, key)
	must(err)
	x, _ := row.(T)
	return x
}

// accessSections writes policies, tokens and namespaces.
func (s *Snapshot) accessSections(f *frameWriter) error {
	for p := range s.Policies() {
		if err := f.json(kindPolicy, p); err != nil {
			return err
		}
	}
	for t := range s.Tokens() {
		if err := f.json(kindToken, t); err != nil {
			return err
		}
	}
	for n := range scan[*Namespace](s, tableNamespaces, byID, nil) {
		if err := f.json(kindNamespace, n); err != nil {
			return err
		}
	}
	return nil
}

// SecretsIn are the secrets of a namespace, by name.
func (t *Txn) SecretsIn(namespace string) []*Secret {
	it, err := t.mem.Get(tableSecrets, byID+"_prefix", nameKey(namespace))
	must(err)
	var all []*Secret
	for row := it.Next(); row != nil; row = it.Next() {
		all = append(all, row.(*Secret))
	}
	return all
}
