package httpapi

import (
	"context"

	"github.com/sheaf-run/agent/api"
)

func (a *API) keyring(ctx context.Context, _ *struct{}) (*Body[api.Keyring], error) {
	out, err := a.Keyring(ctx, nil)
	return &Body[api.Keyring]{Body: out}, err
}

func (a *API) changeKeyring(ctx context.Context, in *struct{ Body api.KeyringChange }) (*Body[api.Keyring], error) {
	out, err := a.Keyring(ctx, &in.Body)
	return &Body[api.Keyring]{Body: out}, err
}
