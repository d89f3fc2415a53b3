package wire

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/sheaf-run/agent/internal/pki"
)

// The protocols behind the TLS of the RPC port, as ALPN names them.
const (
	raftProtocol = "sheaf-raft"
	grpcProtocol = "h2"
)

// acceptTLS is how the RPC port receives others: by certificate only, from the same region
// only, and raft from servers only. Keys are asked anew for each connection, so that
// reloaded ones count. Sessions are not resumed: who comes back shows its certificate again.
func acceptTLS(keys *pki.Keys) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		NextProtos:             []string{grpcProtocol, raftProtocol},
		SessionTicketsDisabled: true,
		GetCertificate:         func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return keys.Certificate(), nil },
		ClientAuth:             tls.RequireAnyClientCert, // and VerifyConnection checks it
		VerifyConnection: func(s tls.ConnectionState) error {
			id, err := keys.Verify(s.PeerCertificates, x509.ExtKeyUsageClientAuth)
			if err != nil {
				return err
			}
			if region := keys.Identity().Region; id.Region != region {
				return fmt.Errorf("%s is not of region %s", id, region)
			}
			if s.NegotiatedProtocol == raftProtocol && id.Role != pki.Server {
				return fmt.Errorf("%s is no server, and only servers speak raft", id)
			}
			return nil
		},
	}
}

// AcceptHTTPS is how the HTTP port receives others. Who they are is a matter of tokens; with
// verified they must also show a certificate of the region, whatever its role.
func AcceptHTTPS(keys *pki.Keys, verified bool) *tls.Config {
	conf := &tls.Config{
		MinVersion:             tls.VersionTLS13,
		SessionTicketsDisabled: true,
		GetCertificate:         func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return keys.Certificate(), nil },
	}
	if verified {
		conf.ClientAuth = tls.RequireAnyClientCert
		conf.VerifyConnection = func(s tls.ConnectionState) error { return sameRegion(keys, s) }
	}
	return conf
}

// sameRegion wants a certificate of an agent or a person of this region.
func sameRegion(keys *pki.Keys, s tls.ConnectionState) error {
	id, err := keys.Verify(s.PeerCertificates, x509.ExtKeyUsageClientAuth)
	if err != nil {
		return err
	}
	if region := keys.Identity().Region; id.Region != region {
		return fmt.Errorf("%s is not of region %s", id, region)
	}
	return nil
}

// dialTLS is how an agent reaches another: whom it finds must satisfy want. The
// address says nothing about who is there, so that names of hosts play no part.
func dialTLS(keys *pki.Keys, want func(pki.Identity) error) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return keys.Certificate(), nil
		},
		InsecureSkipVerify: true, // of the host's name alone: VerifyConnection checks chain and identity
		VerifyConnection: func(s tls.ConnectionState) error {
			id, err := keys.Verify(s.PeerCertificates, x509.ExtKeyUsageServerAuth)
			if err != nil {
				return err
			}
			return want(id)
		},
	}
}

// PeerOf is who made the call of ctx, by its certificate. It is false
// where the connection is plain text: on loopback in dev, or by "insecure".
func PeerOf(ctx context.Context) (pki.Identity, bool) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return pki.Identity{}, false
	}
	info, ok := p.AuthInfo.(proven)
	return info.identity, ok
}

// proven is gRPC's AuthInfo of a connection whose peer showed a certificate.
type proven struct {
	credentials.CommonAuthInfo
	identity pki.Identity
}

// AuthType names the kind.
func (proven) AuthType() string { return "tls" }

// handedOver are the credentials of a gRPC server behind a Mux, which has done
// the handshake already.
type handedOver struct {
	credentials.TransportCredentials
}

// ServerHandshake takes over what the handshake found.
func (handedOver) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	secured, ok := conn.(*tls.Conn)
	if !ok {
		return conn, plain{credentials.CommonAuthInfo{SecurityLevel: credentials.NoSecurity}}, nil
	}
	certs := secured.ConnectionState().PeerCertificates
	if len(certs) == 0 {
		return nil, nil, fmt.Errorf("%s showed no certificate", conn.RemoteAddr())
	}
	id, err := pki.IdentityOf(certs[0])
	if err != nil {
		return nil, nil, err
	}
	return conn, proven{credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}, id}, nil
}

// plain is gRPC's AuthInfo of a connection in plain text.
type plain struct{ credentials.CommonAuthInfo }

// AuthType names the kind.
func (plain) AuthType() string { return "plain" }
