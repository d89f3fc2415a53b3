package api

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	"github.com/sheaf-run/agent/sheaf"
)

// secured is the TLS that the configuration asks for, nil for the system's authorities and no certificate.
func (c Config) secured() (*tls.Config, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.TLSServerName}
	if c.CACert != "" {
		pem, err := os.ReadFile(c.CACert)
		if err != nil {
			return nil, &sheaf.Error{Class: sheaf.Invalid, Field: "SHEAF_CACERT", Msg: "read the authority's certificate", Err: err}
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(pem) {
			return nil, &sheaf.Error{Class: sheaf.Invalid, Field: "SHEAF_CACERT", Msg: c.CACert + " holds no certificate in PEM", Hint: "name the ca.pem that `agent tls init` made"}
		}
	}
	if c.ClientCert == "" && c.ClientKey == "" {
		return conf, nil
	}
	if c.ClientCert == "" || c.ClientKey == "" {
		return nil, &sheaf.Error{Class: sheaf.Invalid, Field: "SHEAF_CLIENT_CERT, SHEAF_CLIENT_KEY", Msg: "a client certificate needs its key, and the key its certificate", Hint: "set both"}
	}
	pair, err := tls.LoadX509KeyPair(c.ClientCert, c.ClientKey)
	if err != nil {
		return nil, &sheaf.Error{Class: sheaf.Invalid, Field: "SHEAF_CLIENT_CERT, SHEAF_CLIENT_KEY", Msg: "read the client certificate", Err: err, Hint: "make one with `agent tls cert -cli`"}
	}
	conf.Certificates = []tls.Certificate{pair}
	return conf, nil
}

// scheme is that of an address which names none: whoever has the authority's certificate means HTTPS.
func (c Config) scheme() string {
	if c.CACert != "" {
		return "https://"
	}
	return "http://"
}

// unreachable says why a request got no answer, and what to do about it.
func (c *Client) unreachable(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	e := &sheaf.Error{Class: sheaf.Unavailable, Msg: "talk to the agent at " + c.base.Host, Err: err}
	var unknown x509.UnknownAuthorityError
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	var op *net.OpError
	switch {
	case errors.As(err, &unknown):
		e.Msg, e.Err = fmt.Sprintf("the agent at %s shows a certificate of an authority that is not trusted here", c.base.Host), nil
		e.Hint = "name the cluster's ca.pem with SHEAF_CACERT or -ca-cert"
		if c.conf.CACert != "" {
			e.Hint = c.conf.CACert + " is not that authority's: is this the right cluster?"
		}
	case errors.As(err, &name):
		e.Msg, e.Err = fmt.Sprintf("the certificate at %s is not for that address, but for %s", c.base.Host, strings.Join(namesOf(name.Certificate), ", ")), nil
		e.Hint = "use one of these names, or make the certificate with -ip or -dns, or say with SHEAF_TLS_SERVER_NAME whom to expect"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		e.Msg, e.Err = fmt.Sprintf("the certificate at %s has expired, or this machine's clock is wrong", c.base.Host), nil
		e.Hint = "make a new one with `agent tls cert`; the agent takes it up without a restart"
	case strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		e.Msg, e.Err, e.Hint = fmt.Sprintf("the agent at %s speaks plain HTTP, not HTTPS", c.base.Host), nil, "set SHEAF_ADDR=http://"+c.base.Host
	case strings.Contains(err.Error(), "tls: certificate required"):
		e.Msg, e.Err = fmt.Sprintf("the agent at %s lets in only who shows a certificate", c.base.Host), nil
		e.Hint = "make one with `agent tls cert -cli` and name it with SHEAF_CLIENT_CERT and SHEAF_CLIENT_KEY"
	case strings.Contains(err.Error(), "remote error: tls: "):
		e.Msg, e.Err = fmt.Sprintf("the agent at %s refuses the certificate shown", c.base.Host), err
		e.Hint = "SHEAF_CLIENT_CERT must be of the agent's cluster and region, and still good"
	case errors.As(err, &op) && op.Op == "dial":
		e.Msg, e.Err, e.Hint = "no agent answers at "+c.base.Host, op.Err, "start one with `agent dev`, or set SHEAF_ADDR"
	}
	return e
}

// namesOf are the names and addresses that a certificate is good for.
func namesOf(cert *x509.Certificate) []string {
	names := cert.DNSNames
	for _, ip := range cert.IPAddresses {
		names = append(names, ip.String())
	}
	return names
}

// plainToTLS is what Go's HTTPS server answers to plain HTTP.
const plainToTLS = "Client sent an HTTP request to an HTTPS server."
