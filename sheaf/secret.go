package sheaf

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"path"
	"time"
)

// Bounds of secrets.
const (
	// MaxSecret is the largest value of a secret, in bytes: sealed and named it fits an entry of
	// the servers' log, and whatever logs in with something has less.
	MaxSecret = 32 << 10
	// MaxSecretGrants is how many patterns of job names one secret is granted to.
	MaxSecretGrants = 64
	// MaxTaskSecrets is how many secrets a task may use.
	MaxTaskSecrets = 32
)

// RegistrySecret is the argument of a driver's config that names the secret
// with the credentials of the registry that its image comes from.
const RegistrySecret = "registry_secret"

// redacted is what a secret shows of itself.
const redacted = "(redacted)"

// Secret is the value of a secret. It shows itself to nothing that formats, encodes
// or logs it; only Reveal gives it away.
type Secret struct{ value []byte }

// NewSecret makes a secret of a value, which is the secret's from then on.
func NewSecret(value []byte) Secret { return Secret{value} }

// Reveal is the value itself, which is not to be changed.
func (s Secret) Reveal() []byte { return s.value }

// String implements fmt.Stringer.
func (s Secret) String() string { return redacted }

// Format implements fmt.Formatter, for every verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// MarshalJSON implements json.Marshaler.
func (s Secret) MarshalJSON() ([]byte, error) { return json.Marshal(redacted) }

// MarshalText implements encoding.TextMarshaler.
func (s Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// LogValue implements slog.LogValuer.
func (s Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// TaskSecret is a secret that a task uses: as a variable or as a file. One of Env
// and File is set.
type TaskSecret struct {
	Name string `json:"name"`
	Env  string `json:"env,omitempty"`  // the variable's name
	File string `json:"file,omitempty"` // absolute, clean; in a directory that holds nothing but secrets
}

// SecretStub is what can be read of a secret. Its value is not among it.
type SecretStub struct {
	Namespace string    `json:"namespace"`
	Name      string    `json:"name"`
	Jobs      []string  `json:"jobs"`    // patterns of the names of jobs that may use it; "*" is every job of the namespace
	Version   uint64    `json:"version"` // grows with each put of a value, and is never used twice
	Created   time.Time `json:"created"`
	Updated   time.Time `json:"updated"`
}

// GrantedTo reports whether a job of the secret's namespace may use it.
func GrantedTo(patterns []string, job string) bool {
	for _, p := range patterns {
		if ok, err := path.Match(p, job); ok && err == nil {
			return true
		}
	}
	return false
}

// SecretNames are the secrets that a job uses, each once, in the order of their first use.
func (j *Job) SecretNames() []string {
	var names []string
	seen := map[string]bool{}
	add := func(name string) {
		if name != "" && !seen[name] {
			seen[name] = true
			names = append(names, name)
		}
	}
	tasks := []*Task{&j.Task}
	if j.Reduce != nil {
		tasks = append(tasks, &j.Reduce.Task)
	}
	for _, t := range tasks {
		for _, s := range t.Secrets {
			add(s.Name)
		}
		if name, ok := t.Config[RegistrySecret].(string); ok {
			add(name)
		}
	}
	return names
}
