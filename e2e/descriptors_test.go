package e2e

import (
	"bufio"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"
)

// TestOutOfConnections: an agent that may have few files open refuses callers in time, goes on with its work meanwhile,
// and serves again when they have gone.
func TestOutOfConnections(t *testing.T) {
	a := &agent{t: t, dataDir: t.TempDir(), home: t.TempDir(), files: 256}
	a.args = []string{"dev", "-data-dir", a.dataDir, "-http-port", freePort(t), "-rpc-port", freePort(t), "-gossip-port", freePort(t)}
	a.start()
	t.Cleanup(a.stop)
	a.ok("job", "run", "-detach", "-id", "before", "-exec", "-count", "20", "--", "sleep", "0.2")

	address := strings.TrimPrefix(a.address, "http://")
	var open []net.Conn
	served, refused, cut := 0, 0, 0
	for range 600 {
		c, err := net.DialTimeout("tcp", address, 10*time.Second)
		if err != nil {
			cut++
			continue
		}
		open = append(open, c)
		if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		_, err = fmt.Fprintf(c, "GET /livez HTTP/1.1\r\nHost: %s\r\n\r\n", address)
		line := ""
		if err == nil {
			line, err = bufio.NewReader(c).ReadString('\n')
		}
		switch {
		case err != nil:
			cut++
		case strings.HasPrefix(line, "HTTP/1.1 200 "):
			served++
		case strings.HasPrefix(line, "HTTP/1.1 429 "), strings.HasPrefix(line, "HTTP/1.1 503 "):
			refused++
		default:
			t.Fatalf("answered %q", line)
		}
	}
	if served == 0 || served > 256/4/4 || refused == 0 {
		t.Errorf("of 600 connections %d were served, %d refused and %d cut off", served, refused, cut)
	}
	if got := a.cli("job", "list"); got.code != 1 || !strings.Contains(got.stderr, "too many connections") {
		t.Errorf("one more: exit %d\n%s", got.code, got.stderr)
	}
	for _, c := range open {
		c.Close()
	}
	var got ran
	await(t, "it serves again", func() bool { // it may hear of the closed connections one after another
		got = a.cli("job", "wait", "before", "-t", "{{.status}} {{.partitions.succeeded}}")
		return got.code != 1
	})
	if got.code != 0 || strings.TrimSpace(got.stdout) != "succeeded 20" {
		t.Errorf("the work from before: exit %d, %s%s", got.code, got.stdout, got.stderr)
	}
	await(t, "it takes work again", func() bool {
		got = a.cli("job", "run", "-id", "after", "-exec", "-count", "3", "--", "true")
		return got.code != 1
	})
	if got.code != 0 {
		t.Errorf("the work from afterwards: exit %d, %s%s", got.code, got.stdout, got.stderr)
	}
}
