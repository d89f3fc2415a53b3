package gossip

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/memberlist"

	"github.com/sheaf-run/agent/sheaf"
)

const (
	// keyLen is the length of the keys that we make: AES-256.
	keyLen = 32
	// maxKeys bounds a keyring: each packet that was not meant for us is tried with all of them.
	maxKeys = 8
	// idLen is how much of a key's SHA-256 names it, in bytes.
	idLen = 6
)

// NewKey makes a key, in the form in which configurations have it.
func NewKey() string {
	var key [keyLen]byte
	_, _ = rand.Read(key[:]) // never fails
	return base64.StdEncoding.EncodeToString(key[:])
}

// ParseKey reads a key in base64: 16, 24 or 32 bytes.
func ParseKey(text string) ([]byte, error) {
	key, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, errors.New("it is not in base64")
	}
	if err := memberlist.ValidateKey(key); err != nil {
		return nil, fmt.Errorf("it is %d bytes long, not 16, 24 or 32", len(key))
	}
	return key, nil
}

// KeyID names a key without giving it away.
func KeyID(key []byte) string {
	sum := sha256.Sum256(key)
	return hex.EncodeToString(sum[:idLen])
}

// IsKeyID reports whether a text has the form of a key's ID.
func IsKeyID(text string) bool {
	b, err := hex.DecodeString(text)
	return err == nil && len(b) == idLen
}

// KeyIDs are the keys that the pool reads, by their IDs in order, and the one it
// writes with. Both are empty without encryption.
func (p *Pool) KeyIDs() (ids []string, primary string) {
	p.keyring.Lock()
	defer p.keyring.Unlock()
	if p.conf.Keyring == nil {
		return nil, ""
	}
	for _, key := range p.conf.Keyring.GetKeys() {
		ids = append(ids, KeyID(key))
	}
	slices.Sort(ids)
	return ids, KeyID(p.conf.Keyring.GetPrimaryKey())
}

// InstallKey lets the pool read what is written with one more key. One that is there already is no mistake.
func (p *Pool) InstallKey(key []byte) error {
	return p.changeKeys(func(ring *memberlist.Keyring) error {
		if p.key(KeyID(key)) == nil && len(ring.GetKeys()) >= maxKeys {
			return &sheaf.Error{Class: sheaf.Conflict, Msg: "the keyring is full", Limit: fmt.Sprintf("%d keys", maxKeys), Hint: "remove old ones first"}
		}
		return ring.AddKey(key)
	})
}

// UseKey makes the pool write with a key that it has.
func (p *Pool) UseKey(id string) error {
	return p.changeKeys(func(ring *memberlist.Keyring) error {
		key := p.key(id)
		if key == nil {
			return &sheaf.Error{Class: sheaf.NotFound, Msg: fmt.Sprintf("key %s is not installed", id), Hint: "install it first"}
		}
		return ring.UseKey(key)
	})
}

// RemoveKey makes the pool forget a key. One that it does not have is no mistake; the one it writes with stays.
func (p *Pool) RemoveKey(id string) error {
	return p.changeKeys(func(ring *memberlist.Keyring) error {
		key := p.key(id)
		if key == nil {
			return nil
		}
		if bytes.Equal(key, ring.GetPrimaryKey()) {
			return &sheaf.Error{Class: sheaf.Conflict, Msg: fmt.Sprintf("key %s is in use", id), Hint: "use another one first"}
		}
		return ring.RemoveKey(key)
	})
}

// key is an installed key by its ID. The caller holds p.keyring.
func (p *Pool) key(id string) []byte {
	for _, key := range p.conf.Keyring.GetKeys() {
		if KeyID(key) == id {
			return key
		}
	}
	return nil
}

// changeKeys changes the keyring and keeps it. A change that cannot be kept is undone, since
// the agent would not find back into its pool after a restart.
func (p *Pool) changeKeys(change func(*memberlist.Keyring) error) error {
	p.keyring.Lock()
	defer p.keyring.Unlock()
	ring := p.conf.Keyring
	if ring == nil {
		return &sheaf.Error{Class: sheaf.Conflict, Msg: "gossip is not encrypted, so that there are no keys to change", Hint: "set gossip { key } in the configuration of every agent and restart them"}
	}
	before, primary := slices.Clone(ring.GetKeys()), ring.GetPrimaryKey()
	if err := change(ring); err != nil {
		return err
	}
	if err := p.saveKeys(); err != nil {
		for _, key := range before {
			err = errors.Join(err, ring.AddKey(key))
		}
		err = errors.Join(err, ring.UseKey(primary))
		for _, key := range slices.Clone(ring.GetKeys()) {
			if !slices.ContainsFunc(before, func(k []byte) bool { return bytes.Equal(k, key) }) {
				err = errors.Join(err, ring.RemoveKey(key))
			}
		}
		return err
	}
	ids := make([]string, 0, maxKeys)
	for _, key := range ring.GetKeys() {
		ids = append(ids, KeyID(key))
	}
	p.log.Info("gossip keys changed", "keys", ids, "primary", KeyID(ring.GetPrimaryKey()))
	return nil
}

// saveKeys writes the keyring to its file, all or nothing. Keys stand there in base64, the primary one first.
func (p *Pool) saveKeys() error {
	if p.keyringFile == "" {
		return nil
	}
	var texts []string
	for _, key := range p.conf.Keyring.GetKeys() {
		texts = append(texts, base64.StdEncoding.EncodeToString(key))
	}
	b, err := json.MarshalIndent(texts, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the gossip keyring: %w", err)
	}
	dir := filepath.Dir(p.keyringFile)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("keep the gossip keyring: %w", err)
	}
	f, err := os.CreateTemp(dir, ".keyring-*") // 0600
	if err != nil {
		return fmt.Errorf("keep the gossip keyring: %w", err)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(append(b, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), p.keyringFile)
	}
	if err != nil {
		return fmt.Errorf("keep the gossip keyring: %w", err)
	}
	return nil
}

// loadKeys gives the keyring to start with, nil for none: what the file keeps, or the configured
// key where there is no file yet. Once keys were rotated the file knows more than the configuration.
func loadKeys(c Config) (*memberlist.Keyring, error) {
	if len(c.Key) == 0 {
		return nil, nil
	}
	if err := memberlist.ValidateKey(c.Key); err != nil {
		return nil, &sheaf.Error{Class: sheaf.Invalid, Field: "gossip.key", Msg: fmt.Sprintf("the gossip key is %d bytes long", len(c.Key)), Limit: "16, 24 or 32 bytes", Hint: "make one with `agent gossip keygen`"}
	}
	keys := [][]byte{c.Key}
	if c.KeyringFile != "" {
		kept, err := readKeys(c.KeyringFile)
		if err != nil {
			return nil, &sheaf.Error{Class: sheaf.Invalid, Field: "gossip", Msg: "the gossip keyring cannot be used", Err: err, Hint: "remove the file to start from the configured key"}
		}
		if len(kept) > 0 {
			keys = kept
		}
		if !slices.ContainsFunc(keys, func(k []byte) bool { return bytes.Equal(k, c.Key) }) {
			c.Logger.Warn("the configured gossip key is not in the keyring, which goes before it; was it rotated?", "keyring", c.KeyringFile, "configured", KeyID(c.Key), "primary", KeyID(keys[0]))
		}
	}
	ring, err := memberlist.NewKeyring(keys[1:], keys[0])
	if err != nil {
		return nil, fmt.Errorf("make the gossip keyring: %w", err)
	}
	return ring, nil
}

func readKeys(path string) ([][]byte, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var texts []string
	if err := json.Unmarshal(b, &texts); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if len(texts) == 0 || len(texts) > maxKeys {
		return nil, fmt.Errorf("read %s: it has %d keys, not 1 to %d", path, len(texts), maxKeys)
	}
	var keys [][]byte
	for i, text := range texts {
		key, err := ParseKey(text)
		if err != nil {
			return nil, fmt.Errorf("read %s: key %d: %w", path, i+1, err)
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// whyNotJoined says in our words what memberlist found, where it is about keys or names.
func whyNotJoined(name string, err error) string {
	if err == nil { // somebody answered, and there is still no other member
		return "who answers there is this agent itself, or is called " + name + " as well: each agent needs a name of its own"
	}
	text := strings.ToLower(err.Error())
	switch {
	case strings.Contains(text, "no installed keys could decrypt"):
		return "the gossip key is not the one that the pool uses"
	case strings.Contains(text, "remote state is encrypted and encryption is not configured") && !strings.Contains(text, "remote error"):
		return "the pool is encrypted, and this agent has no gossip key"
	case strings.Contains(text, "encryption is configured but remote state is not encrypted"):
		return "this agent has a gossip key, and the pool is not encrypted"
	}
	return "no member answers there as one of this region"
}
