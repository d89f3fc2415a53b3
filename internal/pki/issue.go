package pki

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"strings"
	"time"

	"github.com/sheaf-run/agent/sheaf"
)

const (
	// backdate lets a certificate be used at once on a machine whose clock is a little behind.
	backdate = time.Hour
	// serialBits is the length of serial numbers, as RFC 5280 allows.
	serialBits = 127
	// maxNames bounds the further names of a certificate: each handshake carries them.
	maxNames = 64
)

// Pair is a certificate with its private key, both in PEM.
type Pair struct{ Cert, Key []byte }

// NewAuthority makes a certificate authority whose certificate is good from now for as long as given.
// It can sign agents and people, and no further authorities.
func NewAuthority(now time.Time, lasts time.Duration) (Pair, error) {
	return issue(&x509.Certificate{
		Subject:               pkix.Name{CommonName: "Sheaf cluster authority"},
		IsCA:                  true,
		MaxPathLenZero:        true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}, now, lasts, nil, nil)
}

// Request says what certificate is wanted.
type Request struct {
	Identity
	DNS   []string // further names under which HTTPS is reached
	IPs   []net.IP // addresses under which HTTPS is reached
	Lasts time.Duration
}

// Issue makes a certificate signed by the authority.
func Issue(authority Pair, r Request, now time.Time) (Pair, error) {
	if err := r.Check(); err != nil {
		return Pair{}, err
	}
	ca, key, err := readAuthority(authority)
	if err != nil {
		return Pair{}, err
	}
	for _, name := range r.DNS {
		if strings.HasSuffix(strings.ToLower(name), suffix) {
			return Pair{}, &sheaf.Error{Class: sheaf.Invalid, Field: "dns", Msg: fmt.Sprintf("DNS name %q ends in %s", name, suffix), Hint: "those names say who an agent is, and come from role, region and name alone"}
		}
		if err := checkDNS(name); err != nil {
			return Pair{}, err
		}
	}
	if n := len(r.DNS) + len(r.IPs); n > maxNames {
		return Pair{}, &sheaf.Error{Class: sheaf.Invalid, Field: "dns, ip", Msg: fmt.Sprintf("%d further names", n), Limit: fmt.Sprint(maxNames)}
	}
	if end := now.Add(r.Lasts); end.After(ca.NotAfter) {
		return Pair{}, &sheaf.Error{
			Class: sheaf.Invalid, Field: "days", Msg: "the certificate would outlive its authority, which ends on " + ca.NotAfter.Format(time.DateOnly),
			Hint: "ask for fewer days",
		}
	}
	usages := []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	if r.Role != CLI {
		usages = append(usages, x509.ExtKeyUsageServerAuth)
	}
	return issue(&x509.Certificate{
		Subject:               pkix.Name{CommonName: r.String()},
		DNSNames:              append([]string{r.group(), r.String()}, r.DNS...),
		IPAddresses:           r.IPs,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           usages,
	}, now, r.Lasts, ca, key)
}

// checkDNS refuses what no client would look for. A first label of "*" is a wildcard.
func checkDNS(name string) error {
	rest := strings.TrimPrefix(name, "*.")
	for label := range strings.SplitSeq(rest, ".") {
		if label == "" || len(label) > 63 || strings.Trim(label, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") != "" {
			return &sheaf.Error{Class: sheaf.Invalid, Field: "dns", Msg: fmt.Sprintf("%q is no DNS name", name), Hint: "write it as in agent1.example.com; addresses go to -ip"}
		}
	}
	return nil
}

// issue signs the template with a fresh key: by the parent, or by itself.
func issue(template *x509.Certificate, now time.Time, lasts time.Duration, parent *x509.Certificate, parentKey crypto.Signer) (Pair, error) {
	if lasts <= 0 {
		return Pair{}, &sheaf.Error{Class: sheaf.Invalid, Field: "days", Msg: "a certificate lasts for a day at least"}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Pair{}, fmt.Errorf("make a key: %w", err)
	}
	if template.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), serialBits)); err != nil {
		return Pair{}, fmt.Errorf("make a serial number: %w", err)
	}
	template.NotBefore, template.NotAfter = now.Add(-backdate), now.Add(lasts)
	if parent == nil {
		parent, parentKey = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), parentKey)
	if err != nil {
		return Pair{}, fmt.Errorf("sign the certificate: %w", err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return Pair{}, fmt.Errorf("encode the key: %w", err)
	}
	return Pair{
		Cert: pem.EncodeToMemory(&pem.Block{Type: certBlock, Bytes: der}),
		Key:  pem.EncodeToMemory(&pem.Block{Type: keyBlock, Bytes: keyDER}),
	}, nil
}

const (
	certBlock = "CERTIFICATE"
	keyBlock  = "PRIVATE KEY"
)

func readAuthority(p Pair) (*x509.Certificate, crypto.Signer, error) {
	certs, err := ReadCertificates(p.Cert)
	if err != nil {
		return nil, nil, fmt.Errorf("read the authority's certificate: %w", err)
	}
	ca := certs[0]
	if !ca.IsCA {
		return nil, nil, &sheaf.Error{Class: sheaf.Invalid, Field: "ca", Msg: "the certificate is not an authority's", Hint: "make one with `agent tls init`"}
	}
	block, _ := pem.Decode(p.Key)
	if block == nil {
		return nil, nil, &sheaf.Error{Class: sheaf.Invalid, Field: "ca key", Msg: "the authority's key is not in PEM"}
	}
	var key any
	switch block.Type {
	case keyBlock:
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	default:
		err = fmt.Errorf("a %s is no private key", block.Type)
	}
	if err != nil {
		return nil, nil, &sheaf.Error{Class: sheaf.Invalid, Field: "ca key", Msg: "the authority's key cannot be read", Err: err}
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, nil, &sheaf.Error{Class: sheaf.Invalid, Field: "ca key", Msg: "the authority's key cannot sign"}
	}
	if public, ok := signer.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !public.Equal(ca.PublicKey) {
		return nil, nil, &sheaf.Error{Class: sheaf.Invalid, Field: "ca key", Msg: "the key is not the one of the authority's certificate"}
	}
	return ca, signer, nil
}

// ReadCertificates reads PEM that holds certificates and nothing else, at least one.
func ReadCertificates(text []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			break
		}
		if block.Type != certBlock {
			return nil, fmt.Errorf("a %s stands among the certificates", block.Type)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("parse a certificate: %w", err)
		}
		certs = append(certs, cert)
	}
	if len(certs) == 0 {
		return nil, errors.New("there is no certificate in it")
	}
	if len(bytes.TrimSpace(text)) > 0 {
		return nil, errors.New("something stands behind the last certificate that is no PEM")
	}
	return certs, nil
}
