package https

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/sheaf-run/agent/sheaf"
)

const (
	dialTimeout = 10 * time.Second // for one address
	keepAlive   = 15 * time.Second
)

// never are ranges that no configuration opens: link-local ones, where the metadata services of clouds answer,
// and what is no address of one machine.
var never = prefixes("0.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4", "::/128", "fe80::/10", "fec0::/10", "ff00::/8",
	"100.100.100.200/32", "192.0.0.192/32", "fd00:ec2::/32", "fd20:ce::/32")

// private are ranges of machines that are not the world's.
var private = prefixes("10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24",
	"192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "::1/128", "64:ff9b:1::/48", "100::/64", "2001:db8::/32", "fc00::/7")

func prefixes(all ...string) []netip.Prefix {
	var p []netip.Prefix
	for _, s := range all {
		p = append(p, netip.MustParsePrefix(s))
	}
	return p
}

func in(ranges []netip.Prefix, a netip.Addr) bool {
	for _, p := range ranges {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// inner is the IPv4 address that an IPv6 address stands for, for gateways that translate.
func inner(a netip.Addr) netip.Addr {
	a = a.Unmap().WithZone("")
	if a.Is4() {
		return a
	}
	b := a.As16()
	at := -1
	switch {
	case in(nat64, a), in(v4Compatible, a) && !a.IsLoopback() && !a.IsUnspecified():
		at = 12
	case in(sixToFour, a):
		at = 2
	}
	if at < 0 {
		return a
	}
	return netip.AddrFrom4([4]byte(b[at : at+4]))
}

var (
	nat64        = prefixes("64:ff9b::/96")
	v4Compatible = prefixes("::/96")
	sixToFour    = prefixes("2002::/16")
	teredo       = prefixes("2001::/32") // hides its address behind an exclusive or
)

// mayDial refuses addresses that jobs must not reach through this node.
func mayDial(a netip.Addr, privateToo bool) error {
	v4 := inner(a)
	switch {
	case in(never, v4) || in(never, a) || in(teredo, a):
		return &sheaf.Error{Class: sheaf.Denied, Field: "source", Msg: fmt.Sprintf("address %s is never read from", a), Hint: "it is link-local, where metadata services answer, or no machine's"}
	case !privateToo && (in(private, v4) || in(private, a)):
		return &sheaf.Error{Class: sheaf.Denied, Field: "source", Msg: fmt.Sprintf("address %s is private", a), Hint: "where that is meant, say private = true in the host's https block of the client's configuration"}
	}
	return nil
}

// checkHost refuses spellings of addresses that some resolvers understand and we do not: a host that ends in a
// number is an address in its usual form, or an error.
func checkHost(host string) error {
	if _, err := netip.ParseAddr(host); err == nil {
		return nil
	}
	last := strings.TrimSuffix(host, ".")
	last = strings.ToLower(last[strings.LastIndexByte(last, '.')+1:])
	hex, isHex := strings.CutPrefix(last, "0x")
	if last == "" || strings.Trim(last, "0123456789") == "" || isHex && strings.Trim(hex, "0123456789abcdef") == "" || strings.ContainsAny(host, "%:[]") {
		return &sheaf.Error{Class: sheaf.Invalid, Field: "source", Msg: fmt.Sprintf("host %q is neither a name nor an address", host), Hint: "write an address as in 192.0.2.1 or [2001:db8::1]"}
	}
	return nil
}

// resolve finds the addresses of a name.
type resolve func(ctx context.Context, network, host string) ([]netip.Addr, error)

// dialer dials names for one block of the configuration.
type dialer struct {
	private bool
	resolve resolve
}

// dial resolves once, looks at each address, and dials those that may be.
func (d dialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	if err := checkHost(host); err != nil {
		return nil, err
	}
	addrs := []netip.Addr{}
	if a, err := netip.ParseAddr(host); err == nil {
		addrs = append(addrs, a)
	} else if addrs, err = d.resolve(ctx, "ip", host); err != nil {
		return nil, fmt.Errorf("resolve %q: %w", host, err)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("port %q: %w", port, err)
	}
	var errs []error
	dialer := net.Dialer{Timeout: dialTimeout, KeepAlive: keepAlive}
	for _, a := range addrs {
		if err := mayDial(a, d.private); err != nil {
			errs = append(errs, fmt.Errorf("host %q: %w", host, err))
			continue
		}
		conn, err := dialer.DialContext(ctx, network, netip.AddrPortFrom(a.Unmap(), uint16(n)).String())
		if err == nil {
			return conn, nil
		}
		errs = append(errs, err)
	}
	if len(errs) == 0 {
		return nil, fmt.Errorf("host %q has no address", host)
	}
	return nil, errors.Join(errs...)
}
