package e2e

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// TestRanges: a file of a result is had in parts by HTTP, named by its digest, and what is no part of it is refused.
func TestRanges(t *testing.T) {
	a := startAgent(t)
	a.ok("job", "run", "-id", "file", jobspec(t, shell("file", 1, `printf 0123456789 > $SHEAF_OUTPUT_OUT/f; : > $SHEAF_OUTPUT_OUT/empty`, outBlock)))
	sum := sha256.Sum256([]byte("0123456789"))
	tag := fmt.Sprintf("\"%x\"", sum)
	get := func(path string, header map[string]string) (*http.Response, string) {
		t.Helper()
		req, err := http.NewRequest(http.MethodGet, a.address+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		for k, v := range header {
			req.Header.Set(k, v)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp, string(b)
	}
	const file = "/v1/job/file/file?partition=0&output=out&path="
	for _, c := range []struct {
		path, rng, ifRange string
		status             int
		body, content      string
	}{
		{"f", "", "", 200, "0123456789", ""},
		{"f", "bytes=0-", "", 206, "0123456789", "bytes 0-9/10"},
		{"f", "bytes=4-", "", 206, "456789", "bytes 4-9/10"},
		{"f", "bytes=4-6", "", 206, "456", "bytes 4-6/10"},
		{"f", "bytes=4-99", "", 206, "456789", "bytes 4-9/10"},
		{"f", "bytes=-3", "", 206, "789", "bytes 7-9/10"},
		{"f", "bytes=-30", "", 206, "0123456789", "bytes 0-9/10"},
		{"f", "bytes=0-1,4-5", "", 200, "0123456789", ""},
		{"f", "bytes=4-", tag, 206, "456789", "bytes 4-9/10"},
		{"f", "bytes=4-", `"another"`, 200, "0123456789", ""},
		{"f", "bytes=10-", "", 416, "", "bytes */10"},
		{"f", "bytes=-0", "", 416, "", "bytes */10"},
		{"f", "bytes=6-4", "", 400, "", ""},
		{"f", "lines=1-", "", 400, "", ""},
		{"f", "bytes=x-", "", 400, "", ""},
		{"empty", "", "", 200, "", ""},
		{"empty", "bytes=0-", "", 416, "", "bytes */0"},
		{"none", "bytes=0-", "", 404, "", ""},
	} {
		header := map[string]string{}
		if c.rng != "" {
			header["Range"] = c.rng
		}
		if c.ifRange != "" {
			header["If-Range"] = c.ifRange
		}
		resp, body := get(file+c.path, header)
		if resp.StatusCode != c.status || resp.Header.Get("Content-Range") != c.content || c.status < 300 && (body != c.body || resp.ContentLength != int64(len(c.body))) {
			t.Errorf("%s with %v: %d, %q, %q of %d bytes; want %d, %q, %q", c.path, header, resp.StatusCode, resp.Header.Get("Content-Range"), body, resp.ContentLength, c.status, c.content, c.body)
		}
		if c.path == "f" && c.status < 300 && (resp.Header.Get("ETag") != tag || resp.Header.Get("Repr-Digest") != "sha-256=:"+base64.StdEncoding.EncodeToString(sum[:])+":") {
			t.Errorf("%s with %v has tag %s and digest %s", c.path, header, resp.Header.Get("ETag"), resp.Header.Get("Repr-Digest"))
		}
		if c.status >= 400 && !strings.HasPrefix(body, "{") {
			t.Errorf("%s with %v is refused with %q", c.path, header, body)
		}
	}
	if resp, body := get("/v1/job/file/results", nil); resp.Header.Get("ETag") != fmt.Sprintf("\"%x\"", sha256.Sum256([]byte(body))) {
		t.Errorf("the result's manifest has the tag %s", resp.Header.Get("ETag"))
	}
}

// TestCutDownloads: a result comes whole through a server that cuts each transfer of a file in its midst.
func TestCutDownloads(t *testing.T) {
	const lines, most = 40_000, 100_000 // bytes of a transfer
	a := startAgent(t)
	a.ok("job", "run", "-id", "cut", jobspec(t, shell("cut", 2, fmt.Sprintf(`seq -f "%%07.0f" %d > $SHEAF_OUTPUT_OUT/all`, lines), `
  output "out" {
    path  = "/out"
    merge = "concat"
  }`)))
	target, err := url.Parse(a.address)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	transfers := 0
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.ErrorLog = log.New(io.Discard, "", 0)
	proxy.ModifyResponse = func(r *http.Response) error {
		if strings.HasSuffix(r.Request.URL.Path, "/file") {
			mu.Lock()
			defer mu.Unlock()
			transfers++
			r.Body = &cutBody{Reader: io.LimitReader(r.Body, most), Closer: r.Body, whole: r.ContentLength <= most}
		}
		return nil
	}
	server := httptest.NewServer(proxy)
	defer server.Close()
	dir := filepath.Join(t.TempDir(), "result")
	if r := runCLI(t, []string{"SHEAF_ADDR=" + server.URL, "XDG_CONFIG_HOME=" + a.home}, "job", "results", "-o", dir, "cut"); r.code != 0 {
		t.Fatalf("exit %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	var want strings.Builder
	for range 2 {
		for i := range lines {
			_, _ = fmt.Fprintf(&want, "%07d\n", i+1)
		}
	}
	if got := read(t, dir, "outputs", "out", "all"); got != want.String() {
		t.Errorf("the file has %d bytes, not %d, or others", len(got), want.Len())
	}
	if transfers < 8 { // four at least for each part, none of which can hold it
		t.Errorf("it came in %d transfers", transfers)
	}
}

// cutBody ends with an error unless it is whole, so that the connection breaks.
type cutBody struct {
	io.Reader
	io.Closer
	whole bool
}

func (c *cutBody) Read(b []byte) (int, error) {
	n, err := c.Reader.Read(b)
	if errors.Is(err, io.EOF) && !c.whole {
		err = errors.New("cut")
	}
	return n, err
}
