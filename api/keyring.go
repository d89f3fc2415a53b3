package api

import (
	"context"
	"net/http"
)

// Keyring is which gossip keys the region's agents have. Keys go by their IDs: no agent gives one away.
type Keyring struct {
	Members  int              `json:"members"`  // agents that were asked
	Answered int              `json:"answered"` // of them
	Keys     []GossipKey      `json:"keys"`
	Failed   []KeyringFailure `json:"failed,omitempty"`
}

// GossipKey is one key.
type GossipKey struct {
	ID        string `json:"id"`
	Installed int    `json:"installed"` // on how many agents
	Primary   int    `json:"primary"`   // how many encrypt with it
}

// KeyringFailure is an agent that did not do what it was asked.
type KeyringFailure struct {
	Member string `json:"member"`
	Error  string `json:"error"`
}

// The changes of a keyring, in the order of a rotation.
const (
	KeyInstall = "install" // agents read what is written with it
	KeyUse     = "use"     // and write with it
	KeyRemove  = "remove"  // agents forget it
)

// KeyringChange is one step of a rotation on all agents.
type KeyringChange struct {
	Operation string `json:"operation" enum:"install,use,remove"`
	Key       string `json:"key" maxLength:"64"` // base64; to use and remove, the ID will do
}

// Keyring asks all agents of the region which gossip keys they have.
func (c *Client) Keyring(ctx context.Context) (Keyring, error) {
	var out Keyring
	_, err := c.get(ctx, "/v1/operator/keyring", Read{}, &out)
	return out, err
}

// ChangeKeyring changes the gossip keys of all agents of the region. Agents that failed are in
// the reply; the same change again is no mistake.
func (c *Client) ChangeKeyring(ctx context.Context, change KeyringChange) (Keyring, error) {
	var out Keyring
	err := c.send(ctx, http.MethodPost, "/v1/operator/keyring", nil, change, &out)
	return out, err
}
