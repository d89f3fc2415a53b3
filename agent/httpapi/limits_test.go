package httpapi_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/sheaf-run/agent/agent"
)

// dial opens a connection to the agent that ends with the test.
func (s *served) dial(t *testing.T) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(s.base, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// ask sends a request on a connection and reads the reply; an error is the connection's.
func ask(c net.Conn) (*http.Response, error) {
	if _, err := fmt.Fprintf(c, "GET /livez HTTP/1.1\r\nHost: %s\r\n\r\n", c.RemoteAddr()); err != nil {
		return nil, err
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return nil, err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	return resp, err
}

func TestConnectionsAreBounded(t *testing.T) {
	for _, conf := range []*agent.HTTPConfig{{MaxConnections: 4}, {MaxPerAddress: 4}} {
		s := serve(t, func(c *agent.Config) { c.HTTP = conf })
		var open []net.Conn
		for i := range 8 {
			c := s.dial(t)
			open = append(open, c)
			resp, err := ask(c)
			if err != nil {
				t.Fatalf("connection %d: %v", i, err)
			}
			want := http.StatusOK
			if i >= 4 {
				want = http.StatusTooManyRequests
			}
			if resp.StatusCode != want || (want != http.StatusOK) != resp.Close {
				t.Errorf("connection %d: %s, close %v", i, resp.Status, resp.Close)
			}
		}
		for _, c := range open {
			c.Close()
		}
		for deadline := time.Now().Add(time.Minute); ; {
			if resp, err := ask(s.dial(t)); err == nil && resp.StatusCode == http.StatusOK {
				break // service has returned
			}
			if time.Now().After(deadline) {
				t.Fatal("refused after all were closed")
			}
		}
	}
}

// TestDribbledHeader: a header that comes a byte at a time does not hold its connection.
func TestDribbledHeader(t *testing.T) {
	s := serve(t, func(c *agent.Config) { c.HTTP = &agent.HTTPConfig{HeaderTimeout: "200ms"} })
	c := s.dial(t)
	go func() {
		for _, b := range []byte("GET /livez HTTP/1.1\r\nHost: localhost\r\nX-Long: " + strings.Repeat("x", 10_000)) {
			if _, err := c.Write([]byte{b}); err != nil {
				return
			}
			time.Sleep(time.Millisecond) // the attack itself
		}
	}()
	if err := c.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(c)
	if errors.Is(err, os.ErrDeadlineExceeded) || bytes.Contains(b, []byte("200 OK")) {
		t.Errorf("the connection was kept: %q, %v", b, err)
	}
	c.Close()
}

func TestLongHeader(t *testing.T) {
	s := serve(t)
	req, err := http.NewRequest(http.MethodGet, s.base+"/livez", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Long", strings.Repeat("x", 1<<20))
	resp, err := s.http.Do(req)
	if err != nil {
		return // the connection was cut while it was still being sent: refused, too
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("got %s", resp.Status)
	}
}

// TestCompressedBodies: a bomb is refused by its header alone.
func TestCompressedBodies(t *testing.T) {
	s := serve(t)
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	if _, err := io.Copy(z, io.LimitReader(&zeros{}, 64<<20)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	for _, encoding := range []string{"gzip", "deflate", "br"} {
		req, err := http.NewRequest(http.MethodPut, s.base+"/v1/jobs", bytes.NewReader(bomb.Bytes()))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Content-Encoding", encoding)
		resp, err := s.http.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != http.StatusUnsupportedMediaType || !bytes.Contains(body, []byte(`"field":"Content-Encoding"`)) {
			t.Errorf("%s: %s %s", encoding, resp.Status, body)
		}
	}
}

// TestHeadersForBrowsers: a page that shows a reply may do nothing with it.
func TestHeadersForBrowsers(t *testing.T) {
	s := serve(t)
	for _, path := range []string{"/v1/jobs", "/livez", "/nothing", "/v1/openapi.json"} {
		_, h, _ := s.call("GET", path, "")
		for name, want := range map[string]string{
			"Content-Security-Policy": "default-src 'none'", "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Cache-Control": "no-store",
		} {
			if !strings.HasPrefix(h.Get(name), want) {
				t.Errorf("%s: %s is %q", path, name, h.Get(name))
			}
		}
		if h.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s: another page may read it", path)
		}
	}
	for _, method := range []string{"GET", "PUT", "POST", "DELETE", "OPTIONS", "HEAD"} {
		req, err := http.NewRequest(method, s.base+"/v1/jobs", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Origin", "http://evil.example")
		resp, err := s.http.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusForbidden {
			t.Errorf("%s from another page: %s", method, resp.Status)
		}
	}
}
