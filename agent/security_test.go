package agent

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sheaf-run/agent/api"
	"github.com/sheaf-run/agent/internal/gossip"
	"github.com/sheaf-run/agent/internal/leaktest"
	"github.com/sheaf-run/agent/internal/pki"
	"github.com/sheaf-run/agent/internal/pki/pkitest"
	"github.com/sheaf-run/agent/sheaf"
)

func TestMain(m *testing.M) {
	// memberlist waits for its last probe by TCP beyond Shutdown.
	leaktest.Main(m, goleak.IgnoreAnyFunction("github.com/hashicorp/memberlist.(*Memberlist).probeNode"))
}

// said is all that a person reads of an error.
func said(err error) string {
	if err == nil {
		return ""
	}
	text := err.Error()
	var e *sheaf.Error
	if errors.As(err, &e) {
		text += "\n" + e.Hint
	}
	return text
}

// An address that others can reach needs all of TLS, a gossip key and ACLs, or -insecure.
func TestExposure(t *testing.T) {
	tls := &TLSConfig{CA: "ca.pem", Cert: "c.pem", Key: "k.pem"}
	key := &GossipConfig{Key: gossip.NewKey()}
	acl := &ACLConfig{Enabled: true}
	for _, c := range []struct {
		name  string
		conf  Config
		lacks string // of "tls gossip acl"; "-" where it is allowed
	}{
		{"loopback", Config{Bind: "127.0.0.1"}, "-"},
		{"loopback, version 6", Config{Bind: "::1"}, "-"},
		{"nothing", Config{Bind: "10.0.0.5"}, "tls gossip acl"},
		{"everywhere", Config{Bind: "0.0.0.0", Advertise: "10.0.0.5"}, "tls gossip acl"},
		{"only advertised", Config{Bind: "127.0.0.1", Advertise: "10.0.0.5"}, "tls gossip acl"},
		{"no TLS", Config{Bind: "10.0.0.5", Gossip: key, ACL: acl}, "tls"},
		{"no key", Config{Bind: "10.0.0.5", TLS: tls, ACL: acl}, "gossip"},
		{"no ACLs", Config{Bind: "10.0.0.5", TLS: tls, Gossip: key}, "acl"},
		{"ACLs off", Config{Bind: "10.0.0.5", TLS: tls, Gossip: key, ACL: &ACLConfig{}}, "acl"},
		{"all", Config{Bind: "10.0.0.5", TLS: tls, Gossip: key, ACL: acl}, "-"},
		{"insecure", Config{Bind: "10.0.0.5", Insecure: true}, "-"},
	} {
		c.conf.Name, c.conf.Client = "n1", &ClientConfig{Enabled: true}
		_, err := c.conf.Filled()
		if c.lacks == "-" {
			if err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
			continue
		}
		if sheaf.ClassOf(err) != sheaf.Invalid {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		for what, way := range map[string]string{"tls": "agent tls cert -client -region global -name n1", "gossip": "agent gossip keygen", "acl": "agent acl bootstrap"} {
			if lacks := slices.Contains(strings.Fields(c.lacks), what); lacks != strings.Contains(said(err), way) {
				t.Errorf("%s: the error speaks of %q: %v\n%s", c.name, way, !lacks, said(err))
			}
		}
	}
}

func TestSecurityMistakes(t *testing.T) {
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, []byte("not a key\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	long := filepath.Join(t.TempDir(), "long")
	if err := os.WriteFile(long, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		conf Config
		says string
	}{
		{Config{TLS: &TLSConfig{CA: "a"}}, "lacks cert, key"},
		{Config{TLS: &TLSConfig{}}, "lacks ca, cert, key"},
		{Config{Gossip: &GossipConfig{Key: "x"}}, "agent gossip keygen"},
		{Config{Gossip: &GossipConfig{Key: "c2hvcnQ="}}, "5 bytes long, not 16, 24 or 32"},
		{Config{Gossip: &GossipConfig{KeyFile: "/nowhere"}}, "no such file"},
		{Config{Gossip: &GossipConfig{KeyFile: file}}, "not in base64"},
		{Config{Gossip: &GossipConfig{KeyFile: long}}, "too long"},
		{Config{Gossip: &GossipConfig{Key: gossip.NewKey(), KeyFile: file}}, "both"},
		{Config{Bind: "0.0.0.0", Insecure: true}, "set advertise"},
	} {
		c.conf.Server = &ServerConfig{Enabled: true}
		if _, err := c.conf.Filled(); !strings.Contains(said(err), c.says) {
			t.Errorf("%+v: %v; want %q", c.conf, said(err), c.says)
		}
	}
}

// Keys of somebody else are refused at the start, not at the first connection.
func TestKeysAreTheAgentsOwn(t *testing.T) {
	authority := pkitest.New(t)
	for _, c := range []struct {
		id     pki.Identity
		server bool
		says   string
	}{
		{pki.Identity{Role: pki.Server, Region: "eu", Name: "n1"}, true, ""},
		{pki.Identity{Role: pki.Server, Region: "eu", Name: "n1"}, false, ""},
		{pki.Identity{Role: pki.Client, Region: "eu", Name: "n1"}, false, ""},
		{pki.Identity{Role: pki.Client, Region: "eu", Name: "n1"}, true, "agent tls cert -server -region eu -name n1"},
		{pki.Identity{Role: pki.CLI, Region: "eu", Name: "n1"}, false, "agent tls cert -client -region eu -name n1"},
		{pki.Identity{Role: pki.Client, Region: "us", Name: "n1"}, false, `of region "eu"`},
		{pki.Identity{Role: pki.Client, Region: "eu", Name: "n2"}, false, `called "n1"`},
	} {
		f := authority.Files(c.id)
		conf := Config{Name: "n1", Region: "eu", Server: &ServerConfig{Enabled: c.server}, TLS: &TLSConfig{CA: f.CA, Cert: f.Cert, Key: f.Key}}
		_, err := loadKeys(conf)
		if c.says == "" && err != nil || c.says != "" && !strings.Contains(said(err), c.says) {
			t.Errorf("%s on a server (%v): %q; want %q", c.id, c.server, said(err), c.says)
		}
	}
}

// patience bounds the waiting for what takes milliseconds.
const patience = time.Minute

// secured is the configuration of an agent on loopback with TLS and a gossip key.
func secured(a *pkitest.Authority, role pki.Role, name, key string, join ...string) Config {
	f := a.Files(pki.Identity{Role: role, Region: "eu", Name: name})
	return Config{
		Name: name, Region: "eu", Ports: &Ports{}, Join: join,
		Server: &ServerConfig{Enabled: role == pki.Server, BootstrapExpect: 1},
		Client: &ClientConfig{Enabled: role == pki.Client, Drivers: []string{}},
		TLS:    &TLSConfig{CA: f.CA, Cert: f.Cert, Key: f.Key}, Gossip: &GossipConfig{Key: key},
	}
}

// begin runs an agent until the test ends, and waits until it is ready.
func begin(t *testing.T, conf Config) *Agent {
	t.Helper()
	a, err := New(conf, Options{Version: "test", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("agent %s ended with %v", conf.Name, err)
		}
	})
	select {
	case <-a.Ready():
	case err := <-done:
		done <- nil
		t.Fatalf("agent %s ended at once: %v", conf.Name, err)
	case <-time.After(patience):
		t.Fatalf("agent %s did not become ready", conf.Name)
	}
	<-a.pool.Ready() // its address is known
	return a
}

// ask asks the agent at an address who it is.
func ask(t *testing.T, conf api.Config) error {
	t.Helper()
	c, err := api.New(conf)
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.Self(t.Context())
	return err
}

func TestHTTPS(t *testing.T) {
	authority, foreign := pkitest.New(t), pkitest.New(t)
	address := begin(t, secured(authority, pki.Server, "s1", gossip.NewKey())).HTTPAddress()
	plain := begin(t, Config{Name: "p1", Ports: &Ports{}, Server: &ServerConfig{Enabled: true}}).HTTPAddress()
	host := strings.TrimPrefix(address, "https://")
	if host == address {
		t.Fatalf("the agent serves %s", address)
	}
	for _, c := range []struct {
		name string
		conf api.Config
		says string
	}{
		{"trusted", api.Config{Address: address, CACert: authority.CA()}, ""},
		{"without a scheme", api.Config{Address: host, CACert: authority.CA()}, ""},
		{"by its role", api.Config{Address: address, CACert: authority.CA(), TLSServerName: "server.eu.sheaf"}, ""},
		{"plain HTTP", api.Config{Address: "http://" + host}, "write SHEAF_ADDR with https://"},
		{"no authority", api.Config{Address: address}, "SHEAF_CACERT"},
		{"another authority", api.Config{Address: address, CACert: foreign.CA()}, "is this the right cluster?"},
		{"another name", api.Config{Address: address, CACert: authority.CA(), TLSServerName: "c1.client.eu.sheaf"}, "127.0.0.1"},
		{"HTTPS to plain HTTP", api.Config{Address: "https://" + strings.TrimPrefix(plain, "http://"), CACert: authority.CA()}, "set SHEAF_ADDR=http://"},
		{"no such file", api.Config{Address: address, CACert: "/nowhere"}, "no such file"},
		{"half a client certificate", api.Config{Address: address, CACert: authority.CA(), ClientCert: "x"}, "set both"},
	} {
		err := ask(t, c.conf)
		if c.says == "" && err != nil || c.says != "" && !strings.Contains(said(err), c.says) {
			t.Errorf("%s: %q; want %q", c.name, said(err), c.says)
		}
	}
}

// The names in the certificate are those that a browser may use; any other points to us by rebinding.
func TestHTTPSUnderItsNames(t *testing.T) {
	a := begin(t, secured(pkitest.New(t), pki.Server, "s1", gossip.NewKey()))
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: a.dialer.ServerTLS()}}
	defer c.CloseIdleConnections()
	for host, want := range map[string]int{"s1.server.eu.sheaf": 200, "S1.server.eu.sheaf:7610": 200, "localhost": 200, "10.1.2.3": 200, "evil.example.com": 403} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, a.HTTPAddress()+"/livez", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = host
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("addressed as %s: %d, want %d", host, resp.StatusCode, want)
		}
	}
}

func TestHTTPSByCertificateOnly(t *testing.T) {
	authority, foreign := pkitest.New(t), pkitest.New(t)
	conf := secured(authority, pki.Server, "s1", gossip.NewKey())
	conf.TLS.VerifyHTTPSClient = true
	address := begin(t, conf).HTTPAddress()
	jane := pki.Identity{Role: pki.CLI, Region: "eu", Name: "jane"}
	for _, c := range []struct {
		name  string
		files pki.Files
		says  string
	}{
		{"a person", authority.Files(jane), ""},
		{"a client", authority.Files(pki.Identity{Role: pki.Client, Region: "eu", Name: "c1"}), ""},
		{"nobody", pki.Files{}, "agent tls cert -cli"},
		{"another region", authority.Files(pki.Identity{Role: pki.CLI, Region: "us", Name: "jane"}), "refuses the certificate"},
		{"another cluster", foreign.Files(jane), "refuses the certificate"},
	} {
		err := ask(t, api.Config{Address: address, CACert: authority.CA(), ClientCert: c.files.Cert, ClientKey: c.files.Key})
		if c.says == "" && err != nil || c.says != "" && !strings.Contains(said(err), c.says) {
			t.Errorf("%s: %q; want %q", c.name, said(err), c.says)
		}
	}
}

// Certificates end while agents run.
func TestNewCertificateWithoutRestart(t *testing.T) {
	authority := pkitest.New(t)
	a := begin(t, secured(authority, pki.Server, "s1", gossip.NewKey()))
	serial := func() string {
		c := &http.Client{Transport: &http.Transport{TLSClientConfig: a.dialer.ServerTLS()}}
		defer c.CloseIdleConnections()
		resp, err := c.Get(a.HTTPAddress() + "/livez")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		return resp.TLS.PeerCertificates[0].SerialNumber.String()
	}
	before := serial()
	files := authority.Files(pki.Identity{Role: pki.Server, Region: "eu", Name: "s1"}) // over the old ones
	if err := a.Reload(); err != nil || serial() == before {
		t.Errorf("after the reload (%v) the old certificate is shown", err)
	}
	now := serial()
	if err := os.WriteFile(files.Cert, []byte("broken"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := a.Reload(); err == nil || serial() != now {
		t.Errorf("a broken file was taken up: %v", err)
	}
}

// heard is a log that can be waited for.
type heard struct {
	mu   sync.Mutex
	text bytes.Buffer
	more chan struct{} // of size 1
}

func newHeard() *heard { return &heard{more: make(chan struct{}, 1)} }

func (h *heard) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	select {
	case h.more <- struct{}{}:
	default:
	}
	return h.text.Write(p)
}

func (h *heard) await(t *testing.T, says string) {
	t.Helper()
	deadline := time.After(patience)
	for {
		h.mu.Lock()
		text := h.text.String()
		h.mu.Unlock()
		if strings.Contains(text, says) {
			return
		}
		select {
		case <-h.more:
		case <-deadline:
			t.Fatalf("the log does not say %q:\n%s", says, text)
		}
	}
}

// A client of another cluster that has got hold of the gossip key finds the servers, and no way in.
func TestForeignCluster(t *testing.T) {
	authority, foreign := pkitest.New(t), pkitest.New(t)
	key := gossip.NewKey()
	server := begin(t, secured(authority, pki.Server, "s1", key))
	log := newHeard()
	a, err := New(secured(foreign, pki.Client, "c1", key, server.pool.Address()), Options{Version: "test", Logger: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	log.await(t, "unknown authority")
	stop()
	if err := <-done; err != nil {
		t.Errorf("the stranger ended with %v", err)
	}
	for n := range server.server.Snapshot().Nodes() {
		t.Errorf("node %s was let in", n.Name)
	}
}

// Whoever allows an agent without protection is told so at every start.
func TestInsecureIsLoggedAtEveryStart(t *testing.T) {
	for range 2 {
		log := newHeard()
		a, err := New(Config{Name: "n1", Bind: "127.0.0.1", Advertise: "192.0.2.1", Insecure: true, Ports: &Ports{}, Server: &ServerConfig{Enabled: true}}, Options{Logger: slog.New(slog.NewTextHandler(log, nil))})
		if err != nil {
			t.Fatal(err)
		}
		a.closeListeners()
		log.await(t, "INSECURE")
	}
}

// A client registers by its certificate, passes requests on over HTTPS, and takes part in a rotation of
// gossip's key.
func TestSecuredCluster(t *testing.T) {
	authority := pkitest.New(t)
	first, second := gossip.NewKey(), gossip.NewKey()
	server := begin(t, secured(authority, pki.Server, "s1", first))
	client := begin(t, secured(authority, pki.Client, "c1", first, server.pool.Address()))

	c, err := api.New(api.Config{Address: client.HTTPAddress(), CACert: authority.CA()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	nodes, _, err := c.Nodes(t.Context(), api.Read{})
	if err != nil || len(nodes) != 1 || nodes[0].Name != "c1" {
		t.Fatalf("nodes, asked by way of a client: %+v, %v", nodes, err)
	}

	// An agent's log is had through any other, client or server, which is known by its certificate.
	direct, err := api.New(api.Config{Address: server.HTTPAddress(), CACert: authority.CA()})
	if err != nil {
		t.Fatal(err)
	}
	defer direct.Close()
	for _, asked := range []*api.Client{c, direct} {
		for _, name := range []string{"s1", "c1"} {
			lines := 0
			for _, err := range asked.Monitor(t.Context(), api.MonitorOptions{Agent: name}) {
				if err != nil {
					t.Errorf("the log of %s by way of %s: %v", name, asked.Address(), err)
				}
				lines++
				break
			}
			if lines == 0 {
				t.Errorf("the log of %s by way of %s says nothing", name, asked.Address())
			}
		}
	}

	key := func(text string) string {
		k, err := gossip.ParseKey(text)
		if err != nil {
			t.Fatal(err)
		}
		return gossip.KeyID(k)
	}
	expect := func(what string, got api.Keyring, err error, want ...api.GossipKey) {
		t.Helper()
		if err != nil || got.Members != 2 || got.Answered != 2 || len(got.Failed) > 0 || !slices.Equal(got.Keys, want) {
			t.Fatalf("%s: %+v, %v; want %+v", what, got, err, want)
		}
	}
	change := func(operation, k string) (api.Keyring, error) {
		return c.ChangeKeyring(t.Context(), api.KeyringChange{Operation: operation, Key: k})
	}
	got, err := c.Keyring(t.Context())
	expect("list", got, err, api.GossipKey{ID: key(first), Installed: 2, Primary: 2})
	if _, err := change(api.KeyUse, second); sheaf.ClassOf(err) != sheaf.Conflict {
		t.Errorf("use of a key that nobody has: %v", err)
	}
	for _, k := range []string{"", "x", key(second)} {
		if _, err := change(api.KeyInstall, k); sheaf.ClassOf(err) != sheaf.Invalid {
			t.Errorf("install %q: %v", k, err)
		}
	}
	if _, err := change("list", first); sheaf.ClassOf(err) != sheaf.Invalid {
		t.Errorf("an unknown operation: %v", err)
	}
	got, err = change(api.KeyInstall, second)
	two := []api.GossipKey{{ID: key(first), Installed: 2, Primary: 2}, {ID: key(second), Installed: 2}}
	expect("install", got, err, two...)
	got, err = change(api.KeyUse, second)
	expect("use", got, err, api.GossipKey{ID: key(second), Installed: 2, Primary: 2}, api.GossipKey{ID: key(first), Installed: 2})
	got, err = change(api.KeyRemove, key(second))
	if err != nil || got.Answered != 0 || len(got.Failed) != 2 || !strings.Contains(got.Failed[0].Error, "in use") {
		t.Errorf("remove the one in use: %+v, %v", got, err)
	}
	got, err = change(api.KeyRemove, key(first))
	expect("remove", got, err, api.GossipKey{ID: key(second), Installed: 2, Primary: 2})
}
