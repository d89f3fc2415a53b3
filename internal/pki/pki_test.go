package pki_test

import (
	"crypto/x509"
	"encoding/pem"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/sheaf-run/agent/internal/pki"
	"github.com/sheaf-run/agent/internal/pki/pkitest"
	"github.com/sheaf-run/agent/sheaf"
)

const year = 365 * 24 * time.Hour

func parse(t *testing.T, p pki.Pair) *x509.Certificate {
	t.Helper()
	certs, err := pki.ReadCertificates(p.Cert)
	if err != nil {
		t.Fatal(err)
	}
	return certs[0]
}

func TestIdentityIsReadStrictly(t *testing.T) {
	for _, c := range []struct {
		names string
		want  string // an identity, or empty where it is refused
	}{
		{"server.global.sheaf s1.server.global.sheaf", "s1.server.global.sheaf"},
		{"s1.server.global.sheaf localhost server.global.sheaf www.example.com", "s1.server.global.sheaf"},
		{"client.eu-1.sheaf web.1_x.client.eu-1.sheaf", "web.1_x.client.eu-1.sheaf"},
		{"client.a.b.sheaf n.client.a.b.sheaf", "n.client.a.b.sheaf"},
		{"client.global.sheaf server.client.global.sheaf", "server.client.global.sheaf"}, // a client called "server"
		{"cli.global.sheaf jane.cli.global.sheaf", "jane.cli.global.sheaf"},
		{"", ""},
		{"localhost", ""},
		{"server.global.sheaf", ""},
		{"s1.server.global.sheaf", ""},
		{"server.global.sheaf s1.client.global.sheaf", ""},
		{"server.global.sheaf server.global.sheaf", ""},
		{"server.global.sheaf .server.global.sheaf", ""},
		{"server.global.sheaf s1.server.global.sheaf s2.server.global.sheaf", ""},
		{"client.global.sheaf c.client.global.sheaf server.global.sheaf", ""},
		{"server.global.sheaf xserver.global.sheaf", ""},
		{"admin.global.sheaf a.admin.global.sheaf", ""},
		{"SERVER.global.sheaf a.SERVER.global.sheaf", ""},
		{"server..sheaf a.server..sheaf", ""},
		{"server.sheaf a.server.sheaf", ""},
		{"server.global.sheaf *.server.global.sheaf", ""},
	} {
		id, err := pki.IdentityOf(&x509.Certificate{DNSNames: strings.Fields(c.names)})
		if (err == nil) != (c.want != "") || err == nil && id.String() != c.want {
			t.Errorf("%s: %v, %v; want %q", c.names, id, err, c.want)
		}
	}
}

func TestCertificates(t *testing.T) {
	a := pkitest.New(t)
	ca := parse(t, a.Pair())
	if !ca.IsCA || !ca.MaxPathLenZero || ca.MaxPathLen != 0 || ca.KeyUsage&x509.KeyUsageCertSign == 0 {
		t.Errorf("the authority is not constrained: %+v", ca)
	}
	for role, serves := range map[pki.Role]bool{pki.Server: true, pki.Client: true, pki.CLI: false} {
		id := pki.Identity{Role: role, Region: "eu", Name: "n1"}
		cert := parse(t, a.Issue(id, time.Now()))
		if got, err := pki.IdentityOf(cert); err != nil || got != id {
			t.Errorf("%s: identity %v, %v", role, got, err)
		}
		if cert.IsCA || cert.KeyUsage != x509.KeyUsageDigitalSignature {
			t.Errorf("%s: its certificate can sign others", role)
		}
		roots := x509.NewCertPool()
		roots.AddCert(ca)
		_, err := cert.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
		if (err == nil) != serves {
			t.Errorf("%s: good for serving: %v", role, err)
		}
		if err := cert.VerifyHostname("127.0.0.1"); err != nil {
			t.Errorf("%s: HTTPS on loopback: %v", role, err)
		}
	}
}

func TestIssueRefuses(t *testing.T) {
	a := pkitest.New(t)
	good := pki.Request{Identity: pki.Identity{Role: pki.Client, Region: "eu", Name: "n"}, Lasts: time.Hour}
	for name, change := range map[string]func(*pki.Request){
		"unknown role":           func(r *pki.Request) { r.Role = "root" },
		"no name":                func(r *pki.Request) { r.Name = "" },
		"name with a slash":      func(r *pki.Request) { r.Name = "../x" },
		"region with a space":    func(r *pki.Request) { r.Region = "a b" },
		"no time":                func(r *pki.Request) { r.Lasts = 0 },
		"outlives its authority": func(r *pki.Request) { r.Lasts = 20 * year },
		"another identity":       func(r *pki.Request) { r.DNS = []string{"server.eu.sheaf"} },
		"the same in capitals":   func(r *pki.Request) { r.DNS = []string{"server.eu.SHEAF"} },
		"no DNS name":            func(r *pki.Request) { r.DNS = []string{"a b"} },
		"an empty DNS name":      func(r *pki.Request) { r.DNS = []string{""} },
		"too many names":         func(r *pki.Request) { r.IPs = make([]net.IP, 100) },
	} {
		r := good
		change(&r)
		if _, err := pki.Issue(a.Pair(), r, time.Now()); sheaf.ClassOf(err) != sheaf.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := pki.Issue(a.Issue(good.Identity, time.Now()), good, time.Now()); sheaf.ClassOf(err) != sheaf.Invalid {
		t.Errorf("signed by one who is no authority: %v", err)
	}
	mixed := pki.Pair{Cert: a.Pair().Cert, Key: pkitest.New(t).Pair().Key}
	if _, err := pki.Issue(mixed, good, time.Now()); sheaf.ClassOf(err) != sheaf.Invalid {
		t.Errorf("signed with another's key: %v", err)
	}
}

func TestVerify(t *testing.T) {
	a, other := pkitest.New(t), pkitest.New(t)
	keys := a.Keys(pki.Server, "eu", "s1")
	id := pki.Identity{Role: pki.Client, Region: "eu", Name: "c1"}
	now := time.Now()
	for _, c := range []struct {
		name  string
		chain []*x509.Certificate
		says  string
	}{
		{"good", []*x509.Certificate{parse(t, a.Issue(id, now))}, ""},
		{"expired", []*x509.Certificate{parse(t, a.Issue(id, now.Add(-2*year)))}, "expired"},
		{"not yet good", []*x509.Certificate{parse(t, a.Issue(id, now.Add(year)))}, "expired or is not yet valid"},
		{"another authority", []*x509.Certificate{parse(t, other.Issue(id, now))}, "unknown authority"},
		{"another authority, with it", []*x509.Certificate{parse(t, other.Issue(id, now)), parse(t, other.Pair())}, "unknown authority"},
		{"the authority itself", []*x509.Certificate{parse(t, a.Pair())}, "names no agent"},
		{"none", nil, "no certificate"},
	} {
		got, err := keys.Verify(c.chain, x509.ExtKeyUsageClientAuth)
		if c.says == "" && (err != nil || got != id) || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%s: %v, %v; want %q", c.name, got, err, c.says)
		}
	}
	cli := parse(t, a.Issue(pki.Identity{Role: pki.CLI, Region: "eu", Name: "jane"}, now))
	if _, err := keys.Verify([]*x509.Certificate{cli}, x509.ExtKeyUsageServerAuth); err == nil {
		t.Error("a person's certificate passed for a server's")
	}
}

func TestLoadKeysNamesMistakes(t *testing.T) {
	a, other := pkitest.New(t), pkitest.New(t)
	id := pki.Identity{Role: pki.Server, Region: "eu", Name: "s1"}
	for name, change := range map[string]func(*pki.Files){
		"no such file":          func(f *pki.Files) { f.Key = "/nowhere/key.pem" },
		"another authority":     func(f *pki.Files) { f.CA = other.CA() },
		"no authority":          func(f *pki.Files) { f.CA = f.Cert },
		"key and cert exchange": func(f *pki.Files) { f.Cert, f.Key = f.Key, f.Cert },
		"another's key":         func(f *pki.Files) { f.Key = a.Files(pki.Identity{Role: pki.Server, Region: "eu", Name: "s2"}).Key },
		"expired":               func(f *pki.Files) { overwrite(t, f, a.Issue(id, time.Now().Add(-2*year))) },
		"no PEM":                func(f *pki.Files) { put(t, f.CA+".txt", []byte("hello")); f.CA += ".txt" },
		"trailing text":         func(f *pki.Files) { put(t, f.CA+".txt", append(a.Pair().Cert, "more"...)); f.CA += ".txt" },
		"a huge file":           func(f *pki.Files) { put(t, f.CA+".txt", make([]byte, 2<<20)); f.CA += ".txt" },
		"a key among the certificates": func(f *pki.Files) {
			put(t, f.CA+".txt", append(a.Pair().Cert, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("x")})...))
			f.CA += ".txt"
		},
	} {
		f := a.Files(id)
		change(&f)
		_, err := pki.LoadKeys(f)
		if sheaf.ClassOf(err) != sheaf.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func put(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func overwrite(t *testing.T, f *pki.Files, p pki.Pair) {
	t.Helper()
	put(t, f.Cert, p.Cert)
	put(t, f.Key, p.Key)
}

// Certificates end, and authorities are changed, while agents run.
func TestReload(t *testing.T) {
	a, next := pkitest.New(t), pkitest.New(t)
	id := pki.Identity{Role: pki.Server, Region: "eu", Name: "s1"}
	f := a.Files(id)
	keys, err := pki.LoadKeys(f)
	if err != nil {
		t.Fatal(err)
	}
	if changed, err := keys.Reload(); changed || err != nil {
		t.Errorf("reload of the same: %v, %v", changed, err)
	}
	first := keys.Certificate()

	put(t, f.Cert, []byte("half written"))
	if changed, err := keys.Reload(); changed || err == nil || keys.Certificate() != first {
		t.Errorf("reload of a broken file: %v, %v", changed, err)
	}
	overwrite(t, &f, a.Issue(pki.Identity{Role: pki.Server, Region: "eu", Name: "s2"}, time.Now()))
	if _, err := keys.Reload(); sheaf.ClassOf(err) != sheaf.Conflict || keys.Certificate() != first {
		t.Errorf("reload as another: %v", err)
	}
	overwrite(t, &f, a.Issue(id, time.Now()))
	if changed, err := keys.Reload(); !changed || err != nil || keys.Certificate() == first {
		t.Errorf("reload of a new certificate: %v, %v", changed, err)
	}

	// Both authorities are trusted while certificates are changed one by one.
	stranger := []*x509.Certificate{parse(t, next.Issue(id, time.Now()))}
	if _, err := keys.Verify(stranger, x509.ExtKeyUsageClientAuth); err == nil {
		t.Error("the next authority is trusted already")
	}
	put(t, f.CA, append(a.Pair().Cert, next.Pair().Cert...))
	if changed, err := keys.Reload(); !changed || err != nil {
		t.Errorf("reload with two authorities: %v, %v", changed, err)
	}
	if _, err := keys.Verify(stranger, x509.ExtKeyUsageClientAuth); err != nil {
		t.Errorf("the next authority: %v", err)
	}
}
