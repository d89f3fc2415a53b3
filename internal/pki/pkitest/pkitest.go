// Package pkitest makes certificates for tests.
package pkitest

import (
	"crypto/tls"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sheaf-run/agent/internal/pki"
)

const year = 365 * 24 * time.Hour

var loopback = []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}

// Authority signs what a test asks for.
type Authority struct {
	t    testing.TB
	dir  string
	pair pki.Pair
}

// New makes an authority that is three years old, so that it can have signed what has expired.
func New(t testing.TB) *Authority {
	t.Helper()
	pair, err := pki.NewAuthority(time.Now().Add(-3*year), 10*year)
	if err != nil {
		t.Fatal(err)
	}
	a := &Authority{t: t, dir: t.TempDir(), pair: pair}
	a.write("ca.pem", pair.Cert)
	return a
}

// CA is the file of the authority's certificate.
func (a *Authority) CA() string { return filepath.Join(a.dir, "ca.pem") }

// Pair is the authority itself.
func (a *Authority) Pair() pki.Pair { return a.pair }

// Issue signs a certificate of the past or present, good for a year and for this machine.
func (a *Authority) Issue(id pki.Identity, when time.Time) pki.Pair {
	a.t.Helper()
	p, err := pki.Issue(a.pair, pki.Request{Identity: id, DNS: []string{"localhost"}, IPs: loopback, Lasts: year}, when)
	if err != nil {
		a.t.Fatal(err)
	}
	return p
}

// Files are those of a fresh certificate. Asking again for the same identity replaces them.
func (a *Authority) Files(id pki.Identity) pki.Files {
	a.t.Helper()
	p := a.Issue(id, time.Now())
	return pki.Files{CA: a.CA(), Cert: a.write(id.String()+".pem", p.Cert), Key: a.write(id.String()+"-key.pem", p.Key)}
}

// Keys are those files, loaded.
func (a *Authority) Keys(role pki.Role, region, name string) *pki.Keys {
	a.t.Helper()
	k, err := pki.LoadKeys(a.Files(pki.Identity{Role: role, Region: region, Name: name}))
	if err != nil {
		a.t.Fatal(err)
	}
	return k
}

// Certificate is one of the past or present as crypto/tls has it, for those who would not pass for keys.
func (a *Authority) Certificate(id pki.Identity, when time.Time) tls.Certificate {
	a.t.Helper()
	p := a.Issue(id, when)
	c, err := tls.X509KeyPair(p.Cert, p.Key)
	if err != nil {
		a.t.Fatal(err)
	}
	return c
}

func (a *Authority) write(name string, data []byte) string {
	a.t.Helper()
	path := filepath.Join(a.dir, name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		a.t.Fatal(err)
	}
	return path
}
