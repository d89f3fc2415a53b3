package agent

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sheaf-run/agent/internal/gossip"
	"github.com/sheaf-run/agent/internal/pki"
	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/sheaf"
)

// TLSConfig is about who this agent is and whom it trusts.
type TLSConfig struct {
	CA   string `hcl:"ca,optional"`   // file of the authorities to trust
	Cert string `hcl:"cert,optional"` // file of this agent's certificate
	Key  string `hcl:"key,optional"`  // file of its private key
	// HTTP says whether the HTTP API is HTTPS; it is unless told otherwise.
	HTTP *bool `hcl:"http,optional"`
	// VerifyHTTPSClient lets in only those who show a certificate of the region.
	VerifyHTTPSClient bool `hcl:"verify_https_client,optional"`
}

// GossipConfig is about gossip.
type GossipConfig struct {
	Key     string `hcl:"key,optional" show:"hidden"` // base64 of 16, 24 or 32 bytes
	KeyFile string `hcl:"key_file,optional"`          // a file with the same
}

const (
	// keysLookedAt is how often the files of certificate and key are looked at for changes.
	keysLookedAt = 30 * time.Second
	// endsSoon is how long before its end a certificate is warned of, at each start and daily.
	endsSoon = 14 * 24 * time.Hour
	// refusalsLogged is the shortest time between two records of refused
	// connections, so that whoever knocks cannot fill the log.
	refusalsLogged = time.Second
	// maxKeyFile bounds what is read of a gossip key's file.
	maxKeyFile = 4 << 10
)

// on reports whether RPC goes over TLS.
func (t *TLSConfig) on() bool { return t != nil && t.CA != "" && t.Cert != "" && t.Key != "" }

// https reports whether the HTTP API does.
func (t *TLSConfig) https() bool { return t.on() && (t.HTTP == nil || *t.HTTP) }

func (t *TLSConfig) check() error {
	if t == nil || t.on() {
		return nil
	}
	var missing []string
	for _, f := range []struct{ name, path string }{{"ca", t.CA}, {"cert", t.Cert}, {"key", t.Key}} {
		if f.path == "" {
			missing = append(missing, f.name)
		}
	}
	return &sheaf.Error{
		Class: sheaf.Invalid, Field: "tls", Msg: "the tls block lacks " + strings.Join(missing, ", "),
		Hint: "it names three files: ca, cert and key; `agent tls init` and `agent tls cert` make them",
	}
}

// key is the configured gossip key, nil where there is none.
func (g *GossipConfig) key() ([]byte, error) {
	if g == nil || g.Key == "" && g.KeyFile == "" {
		return nil, nil
	}
	text, field := g.Key, "gossip.key"
	if g.KeyFile != "" {
		if g.Key != "" {
			return nil, &sheaf.Error{Class: sheaf.Invalid, Field: "gossip", Msg: "the gossip block has both key and key_file", Hint: "give one of them"}
		}
		field = "gossip.key_file"
		b, err := os.ReadFile(g.KeyFile)
		if err != nil {
			return nil, &sheaf.Error{Class: sheaf.Invalid, Field: field, Msg: "read the gossip key", Err: err, Hint: "`agent gossip keygen` prints one"}
		}
		if len(b) > maxKeyFile {
			return nil, &sheaf.Error{Class: sheaf.TooLarge, Field: field, Msg: g.KeyFile + " is too long for a gossip key", Limit: fmt.Sprintf("%d bytes", maxKeyFile)}
		}
		text = strings.TrimSpace(string(b))
	}
	key, err := gossip.ParseKey(text)
	if err != nil {
		return nil, &sheaf.Error{Class: sheaf.Invalid, Field: field, Msg: "the gossip key cannot be used", Err: err, Hint: "`agent gossip keygen` prints one"}
	}
	return key, nil
}

// missing says what keeps an agent that others can reach from being secure, each with the
// way to it.
func (c Config) missing() []string {
	var list []string
	if !c.TLS.on() {
		role := "-client"
		if c.Server.Enabled {
			role = "-server"
		}
		list = append(list, fmt.Sprintf("tls { ca cert key }: run `agent tls init`, then `agent tls cert %s -region %s -name %s`", role, c.Region, c.Name))
	}
	if c.Gossip == nil || c.Gossip.Key == "" && c.Gossip.KeyFile == "" {
		list = append(list, "gossip { key }: run `agent gossip keygen` once, and give every agent the same")
	}
	if c.ACL == nil || !c.ACL.Enabled {
		list = append(list, "acl { enabled = true }: then run `agent acl bootstrap` once")
	}
	return list
}

// checkExposure refuses an agent that others can reach and that anybody may use.
func (c Config) checkExposure() error {
	for _, f := range []struct{ name, address string }{{"bind", c.Bind}, {"advertise", c.Advertise}} {
		if net.ParseIP(f.address) == nil {
			return &sheaf.Error{Class: sheaf.Invalid, Field: f.name, Msg: fmt.Sprintf("%q is no IP address", f.address), Hint: "write it as in 127.0.0.1 or 10.0.0.5"}
		}
	}
	if missing := c.missing(); len(missing) > 0 && !c.loopback() && !c.Insecure {
		return &sheaf.Error{
			Class: sheaf.Invalid, Field: "bind", Msg: fmt.Sprintf("%s can be reached by others, and the configuration lacks\n  %s", c.Bind, strings.Join(missing, "\n  ")),
			Hint: "add what is missing, or bind a loopback address, or give -insecure on a network you trust",
		}
	}
	if net.ParseIP(c.Advertise).IsUnspecified() {
		return &sheaf.Error{Class: sheaf.Invalid, Field: "advertise", Msg: fmt.Sprintf("others cannot dial %s", c.Advertise), Hint: "set advertise to this machine's own address"}
	}
	return nil
}

func (c Config) loopback() bool {
	return net.ParseIP(c.Bind).IsLoopback() && net.ParseIP(c.Advertise).IsLoopback()
}

// loadKeys reads the agent's keys, nil without TLS, and checks that they are this agent's.
func loadKeys(c Config) (*pki.Keys, error) {
	if !c.TLS.on() {
		return nil, nil
	}
	keys, err := pki.LoadKeys(pki.Files{CA: c.TLS.CA, Cert: c.TLS.Cert, Key: c.TLS.Key})
	if err != nil {
		return nil, err
	}
	id := keys.Identity()
	wrong := func(format string, args ...any) error {
		role := pki.Client
		if c.Server.Enabled {
			role = pki.Server
		}
		return &sheaf.Error{
			Class: sheaf.Invalid, Field: "tls.cert", Msg: fmt.Sprintf("%s is for %s, and ", c.TLS.Cert, id) + fmt.Sprintf(format, args...),
			Hint: fmt.Sprintf("make one with `agent tls cert -%s -region %s -name %s`", role, c.Region, c.Name),
		}
	}
	switch {
	case id.Region != c.Region:
		return nil, wrong("this agent is of region %q", c.Region)
	case id.Name != c.Name:
		return nil, wrong("this agent is called %q", c.Name)
	case c.Server.Enabled && id.Role != pki.Server:
		return nil, wrong("this agent is a server")
	case id.Role == pki.CLI:
		return nil, wrong("this is an agent")
	}
	return keys, nil
}

// secure loads the keys, and says at every start what is not as it should be.
func (a *Agent) secure() error {
	keys, err := loadKeys(a.conf)
	if err != nil {
		return err
	}
	a.keys, a.dialer = keys, wire.Dialer{Keys: keys}
	if !a.conf.loopback() {
		if missing := a.conf.missing(); len(missing) > 0 {
			a.log.Warn("INSECURE: others can reach this agent, and `insecure` allows that it lacks protection", "bind", a.conf.Bind, "missing", strings.Join(missing, "; "))
		}
	}
	if keys != nil {
		if info, err := os.Stat(keys.Files().Key); err == nil && info.Mode().Perm()&0o077 != 0 {
			a.log.Warn("others on this machine can read the private key; run chmod 600", "file", keys.Files().Key, "mode", info.Mode().Perm())
		}
		a.warnOfEnd()
	}
	return nil
}

func (a *Agent) warnOfEnd() {
	if end := a.keys.Expires(); time.Until(end) < endsSoon {
		a.log.Warn("the certificate ends soon: put a new one in its place, which is taken up without a restart", "file", a.keys.Files().Cert, "ends", end)
	}
}

// newMux splits the RPC listener, behind TLS where there are keys.
func (a *Agent) newMux(l net.Listener) *wire.Mux {
	if a.keys == nil {
		return wire.NewMux(l)
	}
	var last atomic.Int64 // when a refusal was logged
	return wire.NewTLSMux(l, a.keys, func(from net.Addr, err error) {
		now := time.Now().UnixNano()
		if before := last.Load(); now-before >= int64(refusalsLogged) && last.CompareAndSwap(before, now) {
			a.log.Warn("refused a connection to the RPC port", "from", from, "error", err)
		}
	})
}

// secureHTTP is the TLS of the HTTP listener, nil where it is plain.
func (a *Agent) secureHTTP() *tls.Config {
	if !a.conf.TLS.https() {
		return nil
	}
	return wire.AcceptHTTPS(a.keys, a.conf.TLS.VerifyHTTPSClient)
}

// hosts are the names under which the HTTP API is addressed: those that its certificate is good for.
func (a *Agent) hosts() []string {
	if !a.conf.TLS.https() {
		return nil
	}
	var names []string
	for _, n := range a.keys.Certificate().Leaf.DNSNames {
		names = append(names, strings.ToLower(n))
	}
	return names
}

// Reload reads certificate, key and authorities again. Those that cannot be used leave the old ones in place.
func (a *Agent) Reload() error {
	if a.keys == nil {
		return nil
	}
	changed, err := a.keys.Reload()
	if changed {
		a.log.Info("took up new TLS keys", "identity", a.keys.Identity(), "ends", a.keys.Expires())
	}
	return err
}

// keepKeys takes up changed keys until ctx ends.
func (a *Agent) keepKeys(ctx context.Context) error {
	if a.keys == nil {
		return nil
	}
	look, warn := time.NewTicker(keysLookedAt), time.NewTicker(24*time.Hour)
	defer look.Stop()
	defer warn.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-look.C:
			if err := a.Reload(); err != nil {
				a.log.Warn("changed TLS keys cannot be used; the old ones stay", "error", err)
			}
		case <-warn.C:
			a.warnOfEnd()
		}
	}
}
