package containerd

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"syscall"
	"time"

	registries "github.com/containerd/containerd/remotes"
	remotes "github.com/containerd/containerd/remotes/docker"

	"github.com/sheaf-run/agent/sheaf"
)

// Bounds of talking to a registry. A pull as a whole takes as long as its image is large.
const (
	dialTimeout   = 10 * time.Second
	headerTimeout = 30 * time.Second
)

// refused says that an address is no registry's: clouds serve credentials at
// link-local addresses to whoever asks from inside.
func refused(_, address string, _ syscall.RawConn) error {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("address of the registry: %w", err)
	}
	ip := at.Addr().Unmap()
	if ip.IsLinkLocalUnicast() || ip.IsMulticast() || ip.IsUnspecified() || ip == metadataIPv6 {
		return &sheaf.Error{Class: sheaf.Invalid, Field: "config.image", Msg: fmt.Sprintf("%s is no address of a registry", ip), Hint: "name a registry by its host"}
	}
	return nil
}

// metadataIPv6 is where one cloud serves its metadata beside 169.254.169.254.
var metadataIPv6 = netip.MustParseAddr("fd00:ec2::254")

// registryClient checks every address it dials, of redirects too, after names are resolved.
var registryClient = &http.Client{Transport: &http.Transport{
	Proxy:                 http.ProxyFromEnvironment,
	DialContext:           (&net.Dialer{Timeout: dialTimeout, Control: refused}).DialContext,
	ResponseHeaderTimeout: headerTimeout,
	TLSHandshakeTimeout:   dialTimeout,
}}

// resolver talks plain HTTP to registries on this machine only. Credentials go to the
// registry of the domain, and to whom that sends us for a token.
func resolver(domain string, as credentials) registries.Resolver {
	host := domain
	if h, _, err := net.SplitHostPort(domain); err == nil {
		host = h
	}
	plain := host == "localhost" || net.ParseIP(host).IsLoopback()
	return remotes.NewResolver(remotes.ResolverOptions{Hosts: remotes.ConfigureDefaultRegistries(
		remotes.WithClient(registryClient),
		remotes.WithAuthorizer(remotes.NewDockerAuthorizer(
			remotes.WithAuthClient(registryClient),
			remotes.WithAuthCreds(func(at string) (string, string, error) {
				if registryOf(at) != registryOf(domain) {
					return "", "", nil
				}
				return as.user, as.password, nil
			}),
		)),
		remotes.WithPlainHTTP(func(string) (bool, error) { return plain, nil }),
	)})
}
