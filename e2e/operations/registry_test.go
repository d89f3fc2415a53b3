package operations

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/sheaf-run/agent/drivers/containerd/containerdtest"
)

// elsewhere is the registry's address, set apart for documentation (RFC 5737).
const elsewhere = "192.0.2.80"

// names are what is found there.
var names = []string{"registry-1.docker.io", "registry.example", "data.example.org", "ipfs.example.org", "s3.example.org"}

// imageRegistry is the registry of the documents' images, under its own names, with an authority that the machines
// trust. Other names of its address are for others.
type imageRegistry struct {
	authority string // PEM
	key       string // PEM
	cert      tls.Certificate
	handler   http.Handler
	others    map[string]http.Handler // by name
}

// ServeHTTP implements http.Handler.
func (r *imageRegistry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if other := r.others[req.Host]; other != nil {
		other.ServeHTTP(w, req)
		return
	}
	r.handler.ServeHTTP(w, req)
}

// newRegistry holds Debian's busybox as docker.io/library/busybox:1.36.
func newRegistry(t *testing.T) *imageRegistry {
	t.Helper()
	r := &imageRegistry{handler: registry.New(registry.Logger(log.New(io.Discard, "", 0))), others: map[string]http.Handler{}}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	// It is its own authority.
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "registry"}, DNSNames: names,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	r.authority = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	r.cert = tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	r.key = string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}))
	r.put(t, "library/busybox:1.36", containerdtest.Busybox(t))
	return r
}

// pool trusts its authority.
func (r *imageRegistry) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(r.authority))
	return pool
}

// put puts an image in.
func (r *imageRegistry) put(t *testing.T, ref string, image containerdtest.Image) {
	t.Helper()
	parsed, err := name.ParseReference("registry.test/" + ref)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(parsed, containerdtest.Build(t, image), remote.WithTransport(r)); err != nil {
		t.Fatal(err)
	}
}

// RoundTrip implements http.RoundTripper: the test puts the image in without a network.
func (r *imageRegistry) RoundTrip(req *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	if req.Body == nil {
		req.Body = http.NoBody // servers always have one
	}
	r.handler.ServeHTTP(w, req)
	got := w.Result()
	got.Request = req
	return got, nil
}

// serve serves it at its address, until the test's end.
func (r *imageRegistry) serve(s *site) {
	s.t.Helper()
	var l net.Listener
	if err := s.inside(func() (err error) {
		l, err = net.Listen("tcp4", elsewhere+":443")
		return err
	}); err != nil {
		s.t.Fatal(err)
	}
	server := &http.Server{Handler: r, ReadHeaderTimeout: time.Minute, ErrorLog: log.New(io.Discard, "", 0)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{r.cert}}))
	}()
	s.t.Cleanup(func() {
		_ = server.Close()
		<-done
	})
}
