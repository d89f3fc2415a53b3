package cluster

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/sheaf-run/agent/api"
	"github.com/sheaf-run/agent/sheaf"
)

// trust is how the agents of a cluster know each other, and the test them: certificates and a
// gossip key, made by the commands that an operator has.
type trust struct {
	dir   string // of the certificates
	key   string // of gossip
	token string
}

// newTrust makes what must be there before the first agent starts.
func newTrust(c *cluster) *trust {
	c.t.Helper()
	t := &trust{dir: filepath.Join(c.dir, "tls")}
	if err := os.Mkdir(t.dir, 0o700); err != nil {
		c.t.Fatal(err)
	}
	offline(c, "tls", "init", "-dir", t.dir)
	t.key = offline(c, "gossip", "keygen")
	return t
}

// offline runs a command that needs no agent.
func offline(c *cluster, args ...string) string {
	c.t.Helper()
	var stderr strings.Builder
	cmd := exec.Command(binary, args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		c.t.Fatalf("agent %s: %v\n%s%s", strings.Join(args, " "), err, out, stderr.String())
	}
	return strings.TrimSpace(string(out))
}

// config makes an agent's certificate, and gives the part of its configuration that is about all this.
func (t *trust) config(a *agent, server bool) string {
	role := "client"
	if server {
		role = "server"
	}
	cert, key := t.issue(a.c, role, a.name, a.address)
	return fmt.Sprintf(`
acl {
  enabled = true
}
tls {
  ca   = %q
  cert = %q
  key  = %q
}
gossip {
  key = %q
}
`, t.ca(), cert, key, t.key)
}

// issue makes a certificate, and says where it and its key are.
func (t *trust) issue(c *cluster, role, name, address string) (cert, key string) {
	c.t.Helper()
	offline(c, "tls", "cert", "-dir", t.dir, "-"+role, "-name", name, "-ip", address)
	base := filepath.Join(t.dir, "global-"+role+"-"+name)
	return base + ".pem", base + "-key.pem"
}

func (t *trust) ca() string { return filepath.Join(t.dir, "ca.pem") }

// client is how the test reaches an agent.
func (t *trust) client(a *agent) api.Config {
	return api.Config{Address: "https://" + a.address + ":7610", CACert: t.ca(), Token: t.token}
}

// environment is the same for the command line.
func (t *trust) environment(a *agent) []string {
	return []string{"SHEAF_ADDR=https://" + a.address + ":7610", "SHEAF_CACERT=" + t.ca(), "SHEAF_TOKEN=" + t.token}
}

// bootstrap makes the first token, once the servers are there, and has the test use it.
func (t *trust) bootstrap(c *cluster) {
	c.t.Helper()
	// It is given once. An answer may be lost where the leader changes at this moment: the secret is chosen here, so
	// that asking again, and hearing that it was made, is as good.
	t.token = rand.Text() + rand.Text()
	anyone(c, "the first token", func(_ context.Context, a *agent) (api.NewToken, error) {
		ctx, stop := context.WithTimeout(context.Background(), patience)
		defer stop()
		made, err := a.api.BootstrapACL(ctx, t.token)
		if sheaf.ClassOf(err) == sheaf.Conflict {
			err = nil
		}
		return made, err
	})
	for _, a := range c.all() {
		c.connect(a)
	}
}
