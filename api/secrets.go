package api

import (
	"context"
	"net/http"
	"net/url"

	"github.com/sheaf-run/agent/sheaf"
)

// SecretPut gives a secret a value, other grants, or both. A value cannot be read back.
type SecretPut struct {
	Value []byte `json:"value,omitempty"` // base64 in JSON; left out, the value stays
	// Jobs are patterns of the names of jobs that may use it. Left out, those stay that are there; a new
	// secret is for every job of its namespace then.
	Jobs []string `json:"jobs,omitempty"`
}

// SecretsResealed says how many secrets were sealed with an older key.
type SecretsResealed struct {
	Resealed int `json:"resealed"`
}

func secretPath(name string) string { return "/v1/secret/" + url.PathEscape(name) }

func inNamespace(namespace string) url.Values {
	q := url.Values{}
	if namespace != "" {
		q.Set("namespace", namespace)
	}
	return q
}

// Secrets lists the secrets of a namespace, a page at a time; "*" is all that the token may list.
func (c *Client) Secrets(ctx context.Context, namespace string, r Read) ([]sheaf.SecretStub, Meta, error) {
	var out []sheaf.SecretStub
	q := url.Values{}
	for k, v := range r.Params {
		q[k] = v
	}
	if namespace != "" {
		q.Set("namespace", namespace)
	}
	r.Params = q
	m, err := c.get(ctx, "/v1/secrets", r, &out)
	return out, m, err
}

// Secret gives what can be read of one secret.
func (c *Client) Secret(ctx context.Context, namespace, name string, r Read) (sheaf.SecretStub, Meta, error) {
	var out sheaf.SecretStub
	r.Params = inNamespace(namespace)
	m, err := c.get(ctx, secretPath(name), r, &out)
	return out, m, err
}

// PutSecret makes or changes a secret.
func (c *Client) PutSecret(ctx context.Context, namespace, name string, put SecretPut) (sheaf.SecretStub, error) {
	var out sheaf.SecretStub
	return out, c.send(ctx, http.MethodPut, secretPath(name), inNamespace(namespace), put, &out)
}

// DeleteSecret forgets a secret. Runs that were given it keep it.
func (c *Client) DeleteSecret(ctx context.Context, namespace, name string) error {
	return c.send(ctx, http.MethodDelete, secretPath(name), inNamespace(namespace), nil, nil)
}

// ResealSecrets has the leader seal all secrets with its newest key.
func (c *Client) ResealSecrets(ctx context.Context) (SecretsResealed, error) {
	var out SecretsResealed
	return out, c.send(ctx, http.MethodPost, "/v1/secrets/reseal", url.Values{}, nil, &out)
}
