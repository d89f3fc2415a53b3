// Package datatoken makes and checks the tokens by which one client may read
// outputs of another. The leader signs them, with a key that it makes for its term and
// that never leaves its memory; nodes are told the public half on their sessions, so that a
// node can check tokens and not make any. A token names the run, who may use it, which
// outputs it may read, and until when in cluster time: a jump of a node's wall clock
// neither prolongs nor ends it.
package datatoken

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/sheaf"
)

const (
	// Lifetime of a token. Who needs longer asks again: it is checked when a call
	// begins, and whoever reads much gets a fresh one with each list.
	Lifetime = 10 * time.Minute
	// maxKeys is how many keys of terms a node keeps: tokens of a leader that has gone are good
	// for Lifetime, and servers that change leaders oftener than this serve nobody.
	maxKeys = 8
	// maxClaims bounds what is read of a stranger's token: it travels in a header.
	maxClaims = 12 << 10
	// domain keeps a signature from being taken for one of anything else.
	domain = "sheaf data token 1\n"
	header = "sheaf-data-token-bin"
)

// Signer signs the tokens of one term.
type Signer struct{ key ed25519.PrivateKey }

// NewSigner makes the key of a term.
func NewSigner() *Signer {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic("datatoken: no randomness: " + err.Error())
	}
	return &Signer{key}
}

// Public is the key by which nodes check.
func (s *Signer) Public() []byte { return s.key.Public().(ed25519.PublicKey) }

// Sign makes a token of claims.
func (s *Signer) Sign(c *wire.DataClaims) []byte {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(c)
	if err != nil {
		panic("datatoken: claims cannot be encoded: " + err.Error()) // they hold valid UTF-8 only
	}
	return append(ed25519.Sign(s.key, append([]byte(domain), b...)), b...)
}

// Keys are what a node was told of its leaders. The zero value knows none, and
// refuses every token.
type Keys struct {
	mu      sync.Mutex
	public  []ed25519.PublicKey // the newest last
	clockMs int64               // cluster time when the newest came
	at      time.Time           // and the moment, on the monotonic clock
}

// Learn takes the key of a leader, and cluster time as it says.
func (k *Keys) Learn(public []byte, clusterMs int64) {
	if len(public) != ed25519.PublicKeySize {
		return // a leader that signs nothing
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.clockMs, k.at = clusterMs, time.Now()
	k.public = slices.DeleteFunc(k.public, func(p ed25519.PublicKey) bool { return p.Equal(ed25519.PublicKey(public)) })
	k.public = append(k.public, slices.Clone(ed25519.PublicKey(public)))
	k.public = k.public[max(0, len(k.public)-maxKeys):]
}

// Check gives the claims of a token. The error, of class Denied, says what is wrong with it.
func (k *Keys) Check(token []byte) (*wire.DataClaims, error) {
	if len(token) < ed25519.SignatureSize || len(token) > maxClaims {
		return nil, denied("it is no token", "")
	}
	signature, claims := token[:ed25519.SignatureSize], token[ed25519.SignatureSize:]
	message := append([]byte(domain), claims...)
	k.mu.Lock()
	known := slices.ContainsFunc(k.public, func(p ed25519.PublicKey) bool { return ed25519.Verify(p, message, signature) })
	now := k.clockMs + time.Since(k.at).Milliseconds()
	k.mu.Unlock()
	if !known {
		return nil, denied("no leader that this node knows has signed it", "ask the servers for another: they may have a new leader")
	}
	c := &wire.DataClaims{}
	if err := proto.Unmarshal(claims, c); err != nil {
		return nil, denied("it cannot be read", "")
	}
	if c.ExpiresMs <= now {
		return nil, denied("it has expired", "ask the servers for another")
	}
	return c, nil
}

func denied(why, hint string) error {
	return &sheaf.Error{Class: sheaf.Denied, Field: "data token", Msg: "the data token is refused: " + why, Hint: hint}
}

// Allows reports why claims do not cover what is asked for: outputs of a run, by name;
// nil outputs are all of the run's.
func Allows(c *wire.DataClaims, run sheaf.RunID, outputs *wire.Executions) error {
	if c.Run != string(run) {
		return denied(fmt.Sprintf("it is for run %s, not for %s", c.Run, run), "")
	}
	if c.Outputs == nil {
		return nil
	}
	if outputs == nil {
		return denied("it is for some outputs of the run, not for all", "")
	}
	for i, first := range outputs.First {
		end := uint64(first) + uint64(outputs.Count[i])
		for p := uint64(first); p < end; p++ { // ends at the first that is not in c
			if p > math.MaxUint32 || !holds(c.Outputs, uint32(p), outputs.Attempt[i]) {
				return denied(fmt.Sprintf("it is not for attempt %d at partition %d", outputs.Attempt[i], p), "")
			}
		}
	}
	return nil
}

func holds(e *wire.Executions, p, attempt uint32) bool {
	for i, first := range e.First {
		if p >= first && p-first < e.Count[i] && e.Attempt[i] == attempt {
			return true
		}
	}
	return false
}

// With gives calls of ctx a token to show.
func With(ctx context.Context, token []byte) context.Context {
	if len(token) == 0 {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, header, string(token))
}

// Shown is the token that the call of ctx shows, or nil.
func Shown(ctx context.Context) []byte {
	if v := metadata.ValueFromIncomingContext(ctx, header); len(v) > 0 {
		return []byte(v[0])
	}
	return nil
}
