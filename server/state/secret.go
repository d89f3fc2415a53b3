package state

import (
	"iter"
	"time"

	"github.com/sheaf-run/agent/sheaf"
)

// Secret is what the log holds of a secret: its value only sealed. A Secret in
// a snapshot never changes.
type Secret struct {
	Namespace string   `json:"namespace"`
	Name      string   `json:"name"`
	Jobs      []string `json:"jobs"` // patterns of the names of jobs that may use it
	Sealed    []byte   `json:"sealed"`
	Version   uint64   `json:"version"` // the index of the entry that put the value
	CreatedMs int64    `json:"created"` // cluster time
	UpdatedMs int64    `json:"updated"` // of the value or the grants
	Modified  uint64   `json:"modified"`
}

// Stub is what can be read of it.
func (s *Secret) Stub() sheaf.SecretStub {
	return sheaf.SecretStub{
		Namespace: s.Namespace, Name: s.Name, Jobs: s.Jobs, Version: s.Version,
		Created: time.UnixMilli(s.CreatedMs).UTC(), Updated: time.UnixMilli(s.UpdatedMs).UTC(),
	}
}

func secretKey(namespace, name string) []byte { return append(nameKey(namespace), nameKey(name)...) }

// Secret is the secret of that name, or nil.
func (s *Snapshot) Secret(namespace, name string) *Secret {
	return first[*Secret](s, tableSecrets, byID, secretKey(namespace, name))
}

// Secrets are all secrets by namespace and name.
func (s *Snapshot) Secrets() iter.Seq[*Secret] { return scan[*Secret](s, tableSecrets, byID, nil) }

// WatchSecrets is closed when any secret changes.
func (s *Snapshot) WatchSecrets() <-chan struct{} { return s.watch(tableSecrets) }

// MissingSecret is the first secret that a job uses and is not granted, "" where
// there is none. One of another namespace does not count, whatever its grants.
func (s *Snapshot) MissingSecret(job *sheaf.Job) string { return missing(job, s.Secret) }

// MissingSecret is the same as of now, within the transaction.
func (t *Txn) MissingSecret(job *sheaf.Job) string { return missing(job, t.Secret) }

func missing(job *sheaf.Job, find func(namespace, name string) *Secret) string {
	for _, name := range job.SecretNames() {
		if x := find(job.Namespace, name); x == nil || !sheaf.GrantedTo(x.Jobs, job.Name) {
			return name
		}
	}
	return ""
}

// Secret is a secret for reading, or nil.
func (t *Txn) Secret(namespace, name string) *Secret {
	row, err := t.mem.First(tableSecrets, byID, secretKey(namespace, name))
	must(err)
	x, _ := row.(*Secret)
	return x
}

// PutSecret stores x, which must not be changed from here on.
func (t *Txn) PutSecret(x *Secret) {
	x.Modified = t.meta.Index
	must(t.mem.Insert(tableSecrets, x))
}

// DeleteSecret removes a secret.
func (t *Txn) DeleteSecret(x *Secret) { must(t.mem.Delete(tableSecrets, x)) }
