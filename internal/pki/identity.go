// Package pki says who an agent or a person is by an X.509 certificate, and makes
// such certificates. A cluster has one small authority of its own; each certificate
// carries role, region and name in DNS names under ".sheaf", which exist nowhere in the DNS.
//
// [Keys] are an agent's own certificate with the authority it trusts. They may be read
// while they are reloaded. What a role may do is decided by those who ask for it.
package pki

import (
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/sheaf-run/agent/sheaf"
)

// Role is what the holder of a certificate is to the cluster.
type Role string

// The roles. A process that is server and client has a server's certificate.
const (
	Server Role = "server"
	Client Role = "client"
	CLI    Role = "cli" // a person or program that uses the HTTP API; it cannot speak RPC
)

var roles = []Role{Server, Client, CLI}

// suffix ends the names that carry an identity.
const suffix = ".sheaf"

// Identity is who holds a certificate.
type Identity struct {
	Role   Role
	Region string
	Name   string // of the agent, and of its node where it is a client
}

// String is the identity as its certificate names it, "web1.client.global.sheaf".
func (id Identity) String() string { return id.Name + "." + id.group() }

// group is the name that all of the role in the region share.
func (id Identity) group() string { return string(id.Role) + "." + id.Region + suffix }

// Check reports what is wrong with an identity that somebody asks for.
func (id Identity) Check() error {
	if !slices.Contains(roles, id.Role) {
		return &sheaf.Error{Class: sheaf.Invalid, Field: "role", Msg: fmt.Sprintf("role %q is unknown", id.Role), Hint: "known: server, client, cli"}
	}
	if err := sheaf.CheckName("region", id.Region); err != nil {
		return err
	}
	return sheaf.CheckName("agent", id.Name)
}

// errNoIdentity is returned for a certificate that is not one of ours.
var errNoIdentity = errors.New("the certificate names no agent: it needs exactly the two DNS names ROLE.REGION.sheaf and NAME.ROLE.REGION.sheaf")

// IdentityOf reads the identity in a certificate. Whether the certificate is
// to be believed is for [Keys.Verify]. Exactly two of its DNS names end in
// ".sheaf", and the longer is the shorter with a name before it; anything else is refused.
func IdentityOf(cert *x509.Certificate) (Identity, error) {
	var ours []string
	for _, name := range cert.DNSNames {
		if strings.HasSuffix(name, suffix) {
			ours = append(ours, name)
		}
	}
	if len(ours) != 2 {
		return Identity{}, errNoIdentity
	}
	group, full := ours[0], ours[1]
	if len(group) > len(full) {
		group, full = full, group
	}
	name, ok := strings.CutSuffix(full, "."+group)
	if !ok {
		return Identity{}, errNoIdentity
	}
	role, region, ok := strings.Cut(strings.TrimSuffix(group, suffix), ".")
	if !ok {
		return Identity{}, errNoIdentity
	}
	id := Identity{Role: Role(role), Region: region, Name: name}
	if err := id.Check(); err != nil {
		return Identity{}, fmt.Errorf("the certificate names no agent: %w", err)
	}
	return id, nil
}
