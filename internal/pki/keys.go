package pki

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/sheaf-run/agent/sheaf"
)

// maxFile bounds what is read of a certificate or key file; a chain has a few KiB.
const maxFile = 1 << 20

// Files are where an agent's keys lie, in PEM.
type Files struct {
	CA   string // the authorities to trust: one, or two while the authority is being changed
	Cert string // this agent's certificate, with intermediates behind it if it has any
	Key  string // its private key
}

// Keys are who an agent is and whom it trusts. All methods may be called concurrently.
type Keys struct {
	files Files
	now   func() time.Time
	held  atomic.Pointer[held]
}

// held is what was read together.
type held struct {
	texts    [3][]byte
	cert     *tls.Certificate
	identity Identity
	roots    *x509.CertPool
}

// LoadKeys reads and checks the files. Errors name the file.
func LoadKeys(files Files) (*Keys, error) {
	k := &Keys{files: files, now: time.Now}
	if _, err := k.Reload(); err != nil {
		return nil, err
	}
	return k, nil
}

// Reload reads the files again and reports whether they have changed. Keys that cannot be used
// leave the old ones in place, and so does another identity: who an agent is stays while it runs.
// Connections that stand keep what they were made with.
func (k *Keys) Reload() (changed bool, err error) {
	h := &held{}
	for i, path := range []string{k.files.CA, k.files.Cert, k.files.Key} {
		if h.texts[i], err = readFile(path); err != nil {
			return false, &sheaf.Error{Class: sheaf.Invalid, Field: "tls", Msg: "read TLS keys", Err: err, Hint: "make them with `agent tls init` and `agent tls cert`"}
		}
	}
	old := k.held.Load()
	if old != nil && bytes.Equal(old.texts[0], h.texts[0]) && bytes.Equal(old.texts[1], h.texts[1]) && bytes.Equal(old.texts[2], h.texts[2]) {
		return false, nil
	}
	if err := h.parse(k.files, k.now()); err != nil {
		return false, err
	}
	if old != nil && old.identity != h.identity {
		return false, &sheaf.Error{
			Class: sheaf.Conflict, Field: "tls.cert", Msg: fmt.Sprintf("%s is now for %s, and this agent runs as %s", k.files.Cert, h.identity, old.identity),
			Hint: "restart the agent to run as another",
		}
	}
	k.held.Store(h)
	return true, nil
}

func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxFile {
		return nil, fmt.Errorf("%s is %d bytes long, and certificates are not", path, info.Size())
	}
	return os.ReadFile(path)
}

func (h *held) parse(files Files, now time.Time) error {
	wrong := func(path, msg string, err error) error {
		return &sheaf.Error{Class: sheaf.Invalid, Field: "tls", Msg: path + ": " + msg, Err: err, Hint: "make one with `agent tls cert`"}
	}
	authorities, err := ReadCertificates(h.texts[0])
	if err != nil {
		return wrong(files.CA, "read the authority's certificate", err)
	}
	h.roots = x509.NewCertPool()
	for _, ca := range authorities {
		if !ca.IsCA {
			return wrong(files.CA, "this is no authority's certificate", nil)
		}
		h.roots.AddCert(ca)
	}
	pair, err := tls.X509KeyPair(h.texts[1], h.texts[2])
	if err != nil {
		return wrong(files.Cert, "read the certificate and its key "+files.Key, err)
	}
	h.cert = &pair
	if h.identity, err = IdentityOf(pair.Leaf); err != nil {
		return wrong(files.Cert, "who is this", err)
	}
	chain, err := ReadCertificates(h.texts[1])
	if err != nil {
		return wrong(files.Cert, "read the certificate", err)
	}
	if _, err := verify(chain, h.roots, now, x509.ExtKeyUsageClientAuth); err != nil {
		return wrong(files.Cert, "not good by "+files.CA, err)
	}
	return nil
}

// Identity is who this agent is.
func (k *Keys) Identity() Identity { return k.held.Load().identity }

// Certificate is what this agent shows to others.
func (k *Keys) Certificate() *tls.Certificate { return k.held.Load().cert }

// Expires is when the certificate ends.
func (k *Keys) Expires() time.Time { return k.held.Load().cert.Leaf.NotAfter }

// Files are where the keys were read.
func (k *Keys) Files() Files { return k.files }

// Verify checks a chain that another showed, its leaf first, against the trusted authorities and the
// clock, and says who it is. The certificate must be made for the usage.
func (k *Keys) Verify(chain []*x509.Certificate, usage x509.ExtKeyUsage) (Identity, error) {
	return verify(chain, k.held.Load().roots, k.now(), usage)
}

func verify(chain []*x509.Certificate, roots *x509.CertPool, now time.Time, usage x509.ExtKeyUsage) (Identity, error) {
	if len(chain) == 0 {
		return Identity{}, errors.New("no certificate was shown")
	}
	intermediates := x509.NewCertPool()
	for _, c := range chain[1:] {
		intermediates.AddCert(c)
	}
	if _, err := chain[0].Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: intermediates, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{usage},
	}); err != nil {
		return Identity{}, err
	}
	return IdentityOf(chain[0])
}
