// Package seal closes and opens what servers keep of secrets: AES-256-GCM with a
// key that lies in a file of every server and never in the log. Several keys may be in
// use: the first closes, all open, so that one can be replaced without a pause.
//
// A Keys never changes and may be used concurrently.
package seal

import (
	"bufio"
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/sheaf-run/agent/sheaf"
)

const (
	keySize = 32 // AES-256
	idSize  = 4  // bytes of a key's hash that tell keys apart
	// version begins what is sealed, so that another cipher can follow.
	version = 1
	// maxKeys bounds the file: a key that has been replaced is soon needed no more.
	maxKeys = 16
	// maxFile is far above maxKeys lines with comments.
	maxFile = 64 << 10
)

// Overhead is how many bytes longer the sealed form of a value is.
const Overhead = 1 + idSize + 12 + 16

// ErrNoKey is wrapped by Open where none of the keys is the one that sealed.
var ErrNoKey = errors.New("the key that it was sealed with is not among this server's")

// ErrDamaged is wrapped by Open where the key is there and the bytes are not what was
// sealed, or not for this label.
var ErrDamaged = errors.New("it is not what was sealed")

// Keys are those of a server, at least one.
type Keys struct{ all []key }

type key struct {
	id   [idSize]byte
	aead cipher.AEAD
}

// NewKey makes a key, as a line of a key file.
func NewKey() string {
	b := make([]byte, keySize)
	_, _ = rand.Read(b) // never fails
	return base64.StdEncoding.EncodeToString(b)
}

// Parse reads a key file: a key in base64 on each line, the newest first; what
// begins with # is a comment.
func Parse(text []byte) (*Keys, error) {
	k := &Keys{}
	lines := bufio.NewScanner(bytes.NewReader(text))
	for n := 1; lines.Scan(); n++ {
		line := bytes.TrimSpace(lines.Bytes())
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		// The line is not quoted: it may be a key with a slip in it.
		b, err := base64.StdEncoding.DecodeString(string(line))
		if err != nil || len(b) != keySize {
			return nil, fmt.Errorf("line %d is not %d bytes in base64", n, keySize)
		}
		block, err := aes.NewCipher(b)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		aead, err := cipher.NewGCM(block)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		sum := sha256.Sum256(append([]byte("sheaf secrets key\x00"), b...))
		x := key{aead: aead}
		copy(x.id[:], sum[:])
		if k.find(x.id[:]) != nil {
			return nil, fmt.Errorf("line %d has a key that stands above already", n)
		}
		k.all = append(k.all, x)
	}
	switch {
	case lines.Err() != nil:
		return nil, lines.Err()
	case len(k.all) == 0:
		return nil, errors.New("it holds no key")
	case len(k.all) > maxKeys:
		return nil, fmt.Errorf("it holds %d keys, more than %d", len(k.all), maxKeys)
	}
	return k, nil
}

// Load reads a key file. One that others than its owner can read is refused.
func Load(path string) (*Keys, error) {
	wrong := func(err error) error {
		return &sheaf.Error{Class: sheaf.Invalid, Field: "server.secrets_key_file", Msg: "read the keys of secrets in " + path, Err: err, Hint: "make the file with: agent secret keygen > " + path + " && chmod 600 " + path}
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, wrong(err)
	}
	if !info.Mode().IsRegular() || info.Size() > maxFile {
		return nil, wrong(errors.New("it is no file of keys"))
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, wrong(fmt.Errorf("others can read it, its mode is %04o", mode))
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, wrong(err)
	}
	k, err := Parse(text)
	if err != nil {
		return nil, wrong(err)
	}
	return k, nil
}

// LoadOrMake is Load, after making the file with one key where there is none.
func LoadOrMake(path string) (*Keys, error) {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		if err := write(path, []byte(NewKey()+"\n")); err != nil {
			return nil, fmt.Errorf("make a key for secrets: %w", err)
		}
	}
	return Load(path)
}

// write makes a file that is whole or not there, and on disk before anything is sealed with it.
func write(path string, text []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".key-*") // of mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) { // unlike a rename it replaces no key
		return err
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

func (k *Keys) find(id []byte) *key {
	for i := range k.all {
		if bytes.Equal(k.all[i].id[:], id) {
			return &k.all[i]
		}
	}
	return nil
}

// Newest names the key that seals.
func (k *Keys) Newest() string { return hex.EncodeToString(k.all[0].id[:]) }

// KeyOf names the key of something sealed; "" where that is nothing of ours.
func KeyOf(sealed []byte) string {
	if len(sealed) < Overhead || sealed[0] != version {
		return ""
	}
	return hex.EncodeToString(sealed[1 : 1+idSize])
}

// Seal closes a value with the first key. Only Open with the same label gives it back.
func (k *Keys) Seal(label string, value []byte) []byte {
	x := k.all[0]
	out := make([]byte, 1+idSize+x.aead.NonceSize(), len(value)+Overhead)
	out[0] = version
	copy(out[1:], x.id[:])
	nonce := out[1+idSize:]
	_, _ = rand.Read(nonce) // never fails
	return x.aead.Seal(out, nonce, value, []byte(label))
}

// Open gives back what was sealed for label. Its errors say nothing of the value.
func (k *Keys) Open(label string, sealed []byte) ([]byte, error) {
	if len(sealed) < Overhead || sealed[0] != version {
		return nil, ErrDamaged
	}
	id := sealed[1 : 1+idSize]
	x := k.find(id)
	if x == nil {
		return nil, fmt.Errorf("%w: it is key %x", ErrNoKey, id)
	}
	rest := sealed[1+idSize:]
	value, err := x.aead.Open(nil, rest[:x.aead.NonceSize()], rest[x.aead.NonceSize():], []byte(label))
	if err != nil {
		return nil, ErrDamaged
	}
	return value, nil
}
