package https

import (
	"context"
	"net/netip"
	"strings"
	"testing"

	"github.com/sheaf-run/agent/sheaf"
)

func TestAddresses(t *testing.T) {
	for addr, want := range map[string]string{ // "" is the world's, "private", "never"
		"1.1.1.1": "", "8.8.8.8": "", "2606:4700::1": "", "172.32.0.1": "", "100.128.0.1": "", "64:ff9b::101:101": "", "2002:101:101::": "",
		"127.0.0.1": "private", "127.255.255.255": "private", "10.1.2.3": "private", "172.31.0.1": "private", "192.168.1.1": "private", "100.64.0.1": "private",
		"198.18.0.1": "private", "::1": "private", "fd00::1": "private", "fc00::1": "private", "::ffff:10.0.0.1": "private", "64:ff9b::a00:1": "private", "2002:a00:1::": "private", "::10.0.0.1": "private",
		"169.254.169.254": "never", "::ffff:169.254.169.254": "never", "64:ff9b::a9fe:a9fe": "never", "2002:a9fe:a9fe::1": "never", "fe80::1": "never", "fe80::1%eth0": "never",
		"fd00:ec2::254": "never", "100.100.100.200": "never", "192.0.0.192": "never", "0.0.0.0": "never", "0.1.2.3": "never", "::": "never", "224.0.0.1": "never", "ff02::1": "never", "255.255.255.255": "never", "2001:0:1::1": "never",
	} {
		a := netip.MustParseAddr(addr)
		open, strict := mayDial(a, true), mayDial(a, false)
		got := ""
		switch {
		case open != nil && strict != nil:
			got = "never"
		case open == nil && strict != nil:
			got = "private"
		}
		if got != want || open != nil && sheaf.ClassOf(open) != sheaf.Denied {
			t.Errorf("%s is %q, want %q (%v, %v)", addr, got, want, open, strict)
		}
	}
}

// TestSpellings: an address in a spelling that only some understand is an error before anybody is asked.
func TestSpellings(t *testing.T) {
	open := opener(t, Host{Pattern: "*"})
	for _, url := range []string{
		"https://2852039166/", "https://0xa9fea9fe/", "https://0xA9.0xFE.0xA9.0xFE/", "https://0251.0376.0251.0376/", "https://169.254.43518/",
		"https://169.254.169.254./x", "https://0/x", "https://127.1/x", "https://127.0.0.01/x", "https://[fe80::1%25eth0]x/a", "https://a.0x7f/x", "https://%31%36%39.254.169.254.1/x",
	} {
		if _, err := open(url); sheaf.ClassOf(err) != sheaf.Invalid {
			t.Errorf("%s: %v", url, err)
		}
	}
}

// TestResolvedOnce: the address that was looked at is the one that is dialed, whatever the name means a moment later.
func TestResolvedOnce(t *testing.T) {
	asked := 0
	d := dialer{resolve: func(context.Context, string, string) ([]netip.Addr, error) {
		asked++
		return []netip.Addr{netip.MustParseAddr("169.254.169.254"), netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::1")}, nil
	}}
	_, err := d.dial(t.Context(), "tcp", "rebind.example:443")
	if sheaf.ClassOf(err) != sheaf.Denied || asked != 1 {
		t.Errorf("asked %d times: %v", asked, err)
	}
	for _, says := range []string{"169.254.169.254", "127.0.0.1", "::1", "rebind.example"} {
		if !strings.Contains(err.Error(), says) {
			t.Errorf("%v does not name %s", err, says)
		}
	}
}
