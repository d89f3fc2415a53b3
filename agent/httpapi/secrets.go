package httpapi

import (
	"context"
	"fmt"

	"github.com/sheaf-run/agent/api"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/sheaf"
)

// SecretParams name a secret.
type SecretParams struct {
	Secret    string `path:"secret" maxLength:"64"`
	Namespace string `query:"namespace" maxLength:"64"`
}

// ofSecrets looks at all secrets.
func ofSecrets(s *state.Snapshot) (uint64, <-chan struct{}) { return s.Index(), s.WatchSecrets() }

// listSecrets lists what can be read of secrets: all but their values.
func (a *API) listSecrets(ctx context.Context, in *struct {
	ReadParams
	PageParams
	Namespace string `query:"namespace" maxLength:"64"`
}) (*Body[[]sheaf.SecretStub], error) {
	snap, headers, err := a.view(ctx, in.ReadParams, ofSecrets)
	if err != nil {
		return nil, err
	}
	who := aclOf(ctx)
	stubs := func(yield func(sheaf.SecretStub) bool) {
		for x := range snap.Secrets() {
			if (in.Namespace == "*" || x.Namespace == orDefault(in.Namespace)) && who.Allows(ReadSecrets, x.Namespace) && !yield(x.Stub()) {
				return
			}
		}
	}
	key := func(s sheaf.SecretStub) string { return s.Name }
	if in.Namespace == "*" {
		key = func(s sheaf.SecretStub) string { return s.Namespace + "\x00" + s.Name }
	}
	page, next, err := Page(ctx, in.PageParams, stubs, key)
	headers.NextToken = next
	return &Body[[]sheaf.SecretStub]{headers, page}, err
}

func (a *API) getSecret(ctx context.Context, in *struct {
	ReadParams
	SecretParams
}) (*Body[sheaf.SecretStub], error) {
	namespace := orDefault(in.Namespace)
	snap, headers, err := a.view(ctx, in.ReadParams, ofSecrets)
	if err != nil {
		return nil, err
	}
	x := snap.Secret(namespace, in.Secret)
	if x == nil || !aclOf(ctx).Allows(ReadSecrets, namespace) {
		return nil, &sheaf.Error{Class: sheaf.NotFound, Field: "secret", Msg: fmt.Sprintf("namespace %q has no secret %q", namespace, in.Secret), Hint: "`agent secret list` shows what there is"}
	}
	return &Body[sheaf.SecretStub]{headers, x.Stub()}, nil
}

// putSecret gives a secret a value, other grants, or both.
func (a *API) putSecret(ctx context.Context, in *struct {
	SecretParams
	Body api.SecretPut
}) (*Body[sheaf.SecretStub], error) {
	namespace := orDefault(in.Namespace)
	if err := allow(ctx, namespace); err != nil {
		return nil, err
	}
	for _, err := range []error{sheaf.CheckName("namespace", namespace), sheaf.CheckName("secret", in.Secret)} {
		if err != nil {
			return nil, err
		}
	}
	var stub sheaf.SecretStub
	var err error
	switch {
	case in.Body.Value != nil:
		stub, _, err = a.Server.PutSecret(ctx, namespace, in.Secret, in.Body.Jobs, sheaf.NewSecret(in.Body.Value))
	case len(in.Body.Jobs) > 0:
		stub, _, err = a.Server.GrantSecret(ctx, namespace, in.Secret, in.Body.Jobs)
	default:
		err = &sheaf.Error{Class: sheaf.Invalid, Field: "value", Msg: "the request has neither a value nor jobs", Hint: `send {"value": "…"} in base64, {"jobs": ["…"]}, or both`}
	}
	if err != nil {
		return nil, err
	}
	return &Body[sheaf.SecretStub]{Body: stub}, nil
}

func (a *API) deleteSecret(ctx context.Context, in *SecretParams) (*struct{}, error) {
	namespace := orDefault(in.Namespace)
	if err := allow(ctx, namespace); err != nil {
		return nil, err
	}
	_, err := a.Server.DeleteSecret(ctx, namespace, in.Secret)
	return nil, err
}

func (a *API) resealSecrets(ctx context.Context, _ *struct{}) (*Body[api.SecretsResealed], error) {
	n, err := a.Server.ResealSecrets(ctx)
	if err != nil {
		return nil, err
	}
	return &Body[api.SecretsResealed]{Body: api.SecretsResealed{Resealed: n}}, nil
}
