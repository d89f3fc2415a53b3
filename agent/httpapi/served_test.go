package httpapi_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sheaf-run/agent/agent"
	"github.com/sheaf-run/agent/drivers/builtin"
	"github.com/sheaf-run/agent/internal/leaktest"
	"github.com/sheaf-run/agent/jobspec"
)

// TestMain makes the test binary a driver plugin too, and checks that nothing is left running.
func TestMain(m *testing.M) {
	if jobspec.IsChild(os.Args) {
		os.Exit(jobspec.ChildMain(os.Args, os.Stdin, os.Stdout))
	}
	if handled, code := builtin.PluginMain(os.Args[1:]); handled {
		os.Exit(code)
	}
	// memberlist waits for its last probe by TCP beyond Shutdown.
	leaktest.Main(m, goleak.IgnoreAnyFunction("github.com/hashicorp/memberlist.(*Memberlist).probeNode"))
}

// served is a dev agent's API.
type served struct {
	t    testing.TB
	base string
	http *http.Client
}

func serve(t testing.TB, edits ...func(*agent.Config)) *served {
	t.Helper()
	conf := agent.DevConfig("", agent.Ports{})
	for _, edit := range edits {
		edit(&conf)
	}
	a, err := agent.New(conf, agent.Options{Version: "test", Dev: true, Clients: 1, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	transport := &http.Transport{}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		stop()
		if err := <-done; err != nil {
			t.Errorf("the agent ended with %v", err)
		}
	})
	select {
	case <-a.Ready():
	case err := <-done:
		done <- err
		t.Fatalf("the agent ended at once: %v", err)
	}
	return &served{t, a.HTTPAddress(), &http.Client{Transport: transport}}
}

// call sends a request; a body goes as JSON.
func (s *served) call(method, path, body string) (int, http.Header, string) {
	s.t.Helper()
	var rd io.Reader
	if body != "" {
		rd = strings.NewReader(body)
	}
	req, err := http.NewRequest(method, s.base+path, rd)
	if err != nil {
		s.t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := s.http.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(b)
}

func mockJob(name string, count int) string {
	return fmt.Sprintf(`{"name":%q,"count":%d,"task":{"name":"t","driver":"mock"}}`, name, count)
}

// done submits a mock job and waits for its end by blocking reads.
func (s *served) done(id string, count int) {
	s.t.Helper()
	if code, _, body := s.call("PUT", "/v1/jobs", fmt.Sprintf(`{"id":%q,"job":%s}`, id, mockJob("noop", count))); code != 200 {
		s.t.Fatalf("submit: %d %s", code, body)
	}
	for index := "0"; ; {
		code, h, body := s.call("GET", "/v1/job/"+id+"?wait=2m&index="+index, "")
		if code != 200 {
			s.t.Fatalf("read: %d %s", code, body)
		}
		if strings.Contains(body, `"status":"succeeded"`) {
			return
		}
		if h.Get("X-Sheaf-Index") == index {
			s.t.Fatalf("the run did not end: %s", body)
		}
		index = h.Get("X-Sheaf-Index")
	}
}

// TestServed calls every endpoint of a real agent, and with what it must refuse.
func TestServed(t *testing.T) {
	s := serve(t)
	s.done("first", 3)
	s.done("second", 1)
	deep := `{"job":` + strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000) + "}"
	for _, c := range []struct {
		method, path, body string
		status             int
		says               string // stands in the body
	}{
		{"GET", "/v1/jobs", "", 200, `"id":"first"`},
		{"GET", "/v1/jobs?prefix=sec", "", 200, `[{"id":"second"`},
		{"GET", "/v1/jobs?reverse=true&per_page=1", "", 200, `[{"id":"second"`},
		{"GET", "/v1/jobs?filter=partitions.total%20%3D%3D%203", "", 200, `[{"id":"first"`},
		{"GET", "/v1/job/first", "", 200, `"driver":"mock"`},
		{"GET", "/v1/job/noop", "", 200, `"id":"second"`},
		{"GET", "/v1/job/first/summary", "", 200, `"succeeded":3`},
		{"GET", "/v1/job/first/partitions?per_page=1&partitions=1-2", "", 200, `[{"index":1,`},
		{"GET", "/v1/job/first/partitions?state=failed", "", 200, `[]`},
		{"GET", "/v1/job/first/grid", "", 200, "333"},
		{"GET", "/v1/job/first/errors", "", 200, `"groups":[]`},
		{"GET", "/v1/job/first/explain?partition=2", "", 200, "was committed"},
		{"GET", "/v1/job/first/results", "", 200, ""},
		{"GET", "/v1/job/first/records?partitions=1", "", 200, `{"partition":1,"attempt":1,"exit_code":0}`},
		{"GET", "/v1/job/first/logs?partition=0", "", 200, ""},
		{"GET", "/v1/partition/first/0", "", 200, `"state":"succeeded"`},
		{"POST", "/v1/job/first/stop", "{}", 200, `"status":"succeeded"`},
		{"POST", "/v1/jobs/plan", mockJob("x", 1), 200, `"eligible_nodes":1`},
		{"POST", "/v1/jobs/parse", `{"hcl":"job \"x\" {\n task \"t\" {\n driver = \"mock\"\n }\n}"}`, 200, `"name":"x"`},
		{"POST", "/v1/inputs/preview", `{"job":` + mockJob("x", 2) + `}`, 200, `"total":{"partitions":2`},
		{"GET", "/v1/nodes", "", 200, `"status":"ready"`},
		{"GET", "/v1/node/dev", "", 200, `"name":"dev"`},
		{"GET", "/v1/regions", "", 200, `["global"]`},
		{"GET", "/v1/agent/state", "", 200, `"digest":"`},
		{"GET", "/v1/agent/self", "", 200, `"version":"test"`},
		{"GET", "/v1/agent/members", "", 200, `"leader":true`},
		{"GET", "/v1/agent/health", "", 200, `"ready":true`},
		{"GET", "/v1/status/leader", "", 200, `"127.0.0.1:`},
		{"GET", "/v1/status/peers", "", 200, `["127.0.0.1:`},
		{"GET", "/livez", "", 200, "ok"},
		{"GET", "/readyz", "", 200, "ok"},

		{"GET", "/v1/jobs?index=-1", "", 400, `"field":"index","limit":"18446744073709551615"`},
		{"GET", "/v1/jobs?index=18446744073709551616", "", 400, `"field":"index"`},
		{"GET", "/v1/jobs?wait=999h", "", 400, `"field":"wait","limit":"10m0s"`},
		{"GET", "/v1/jobs?next_token=forged", "", 400, `"field":"next_token"`},
		{"GET", "/v1/job/first/partitions?next_token=azphYmM", "", 400, `"field":"next_token"`},
		{"GET", "/v1/jobs?per_page=-1", "", 400, `"field":"per_page"`},
		{"GET", "/v1/jobs?per_page=1000000", "", 400, `"field":"per_page"`},
		{"GET", "/v1/jobs?perpage=1", "", 400, `it takes: index, wait, stale, per_page`},
		{"GET", "/v1/metrics?x=1", "", 400, `"field":"x"`},
		{"GET", "/v1/nodes?namespace=other", "", 200, `"name":"dev"`},
		{"GET", "/v1/jobs?filter=nope", "", 400, `"field":"filter"`},
		{"GET", "/v1/job/first/partitions?state=x", "", 400, `"field":"state"`},
		{"GET", "/v1/job/first/partitions?partitions=3", "", 404, `"limit":"3 partitions, from 0"`},
		{"GET", "/v1/job/first/logs?partition=x", "", 404, `"field":"partition"`},
		{"GET", "/v1/job/first/logs?partition=0&offset=-1", "", 400, `"field":"offset"`},
		{"GET", "/v1/job/first/file?partition=0&output=o&path=../../etc/passwd", "", 400, "is not clean"},
		{"GET", "/v1/partition/first/-1", "", 404, `"field":"partition"`},
		{"GET", "/v1/job/nope", "", 404, `"code":"not_found"`},
		{"GET", "/v1/node/nope", "", 404, `"field":"node"`},
		{"GET", "/v1/nope", "", 404, "openapi.json"},
		{"POST", "/v1/jobs", "{}", 405, `"limit":"GET, PUT"`},
		{"DELETE", "/v1/nodes", "", 405, `"limit":"GET"`},
		{"PUT", "/v1/jobs", `{"job":{},"x":1}`, 400, `"field":"x"`},
		{"PUT", "/v1/jobs", `{"id":"a","id":"b","job":{}}`, 400, `"field":"id"`},
		{"PUT", "/v1/jobs", `{"job":{"name":"x","name":"y"}}`, 400, `"field":"name"`},
		{"PUT", "/v1/jobs", `{"job":{"name":"x","nam":"y"}}`, 400, `nam`},
		{"PUT", "/v1/jobs", "{\"id\":\"\xff\"}", 400, "UTF-8"},
		{"PUT", "/v1/jobs", `{`, 400, "malformed JSON"},
		{"PUT", "/v1/jobs", `{"job":null}`, 400, `"field":"job"`},
		{"PUT", "/v1/jobs", deep, 400, `"limit":"64"`},
		{"PUT", "/v1/jobs", `{"id":"../../x","job":` + mockJob("x", 1) + `}`, 400, `"field":"id"`},
		{"PUT", "/v1/jobs", `{"id":"first","job":` + mockJob("other", 1) + `}`, 409, `"code":"conflict"`},
		{"PUT", "/v1/jobs", `{"id":"x","job":` + mockJob("x", 1_000_000_000) + `}`, 400, `10,000,000`},
		{"POST", "/v1/jobs/plan", `null`, 400, `"field":"job"`},
		{"POST", "/v1/jobs/plan", strings.Replace(mockJob("x", 1), `"mock"`, `"nope"`, 1), 400, "known: containerd, exec, mock, wasm"},
		{"POST", "/v1/jobs/parse", `{"hcl":"job \"x\" {"}`, 400, "jobspec:1:9"},
		{"POST", "/v1/job/first/retry", `{}`, 400, "give exactly one"},
		{"POST", "/v1/job/first/retry", `{"failed":true}`, 409, `"code":"conflict"`},
		{"DELETE", "/v1/job/second", "", 204, ""},
		{"DELETE", "/v1/job/second", "", 404, ""},
	} {
		status, header, body := s.call(c.method, c.path, c.body)
		if status != c.status || !strings.Contains(body, c.says) {
			t.Errorf("%s %s %.80s: %d, want %d\n got: %.300s\nwant: %s", c.method, c.path, c.body, status, c.status, body, c.says)
		}
		if status >= 400 && header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s %s: refused as %q", c.method, c.path, header.Get("Content-Type"))
		}
	}
	t.Run("pages", s.pages)
	t.Run("bodies", s.bodies)
	t.Run("blocking", s.blocking)
	t.Run("openapi", s.openAPI)
	t.Run("metrics", s.metrics)
}

// pages: a list in pages is the list.
func (s *served) pages(t *testing.T) {
	got, token := []int{}, ""
	for range 4 {
		_, h, body := s.call("GET", "/v1/job/first/partitions?per_page=2&next_token="+token, "")
		var page []struct{ Index int }
		if err := json.Unmarshal([]byte(body), &page); err != nil {
			t.Fatal(err)
		}
		for _, p := range page {
			got = append(got, p.Index)
		}
		if token = h.Get("X-Sheaf-NextToken"); token == "" {
			break
		}
	}
	if fmt.Sprint(got) != "[0 1 2]" {
		t.Errorf("got %v", got)
	}
}

// zeros is a body that never ends; it counts what was taken of it.
type zeros struct{ taken int }

func (z *zeros) Read(p []byte) (int, error) {
	clear(p)
	z.taken += len(p)
	return len(p), nil
}

// bodies: one without end is refused early, one that is no JSON before it is read.
func (s *served) bodies(t *testing.T) {
	for _, path := range []string{"PUT /v1/jobs", "POST /v1/inputs/preview", "POST /v1/jobs/parse"} {
		method, path, _ := strings.Cut(path, " ")
		z := &zeros{}
		req, err := http.NewRequest(method, s.base+path, io.LimitReader(z, 1<<30))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		resp, err := s.http.Do(req)
		if err != nil {
			continue // the connection was cut while it was still being sent: refused, too
		}
		b, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != http.StatusRequestEntityTooLarge || !bytes.Contains(b, []byte(`"limit":"`)) {
			t.Errorf("%s %s: %d %s", method, path, resp.StatusCode, b)
		}
		if z.taken > 256<<20 {
			t.Errorf("%s %s: %d bytes were taken", method, path, z.taken)
		}
	}
}

// blocking: a read waits for the change that it is about, and not for ever.
func (s *served) blocking(t *testing.T) {
	_, h, _ := s.call("GET", "/v1/jobs", "")
	woken := make(chan string)
	go func() {
		_, _, body := s.call("GET", "/v1/jobs?wait=2m&index="+h.Get("X-Sheaf-Index"), "")
		woken <- body
	}()
	s.done("third", 1)
	if body := <-woken; !strings.Contains(body, `"third"`) {
		t.Errorf("woken without the change: %s", body)
	}
	_, h, _ = s.call("GET", "/v1/job/third", "")
	index := h.Get("X-Sheaf-Index")
	if _, h, _ = s.call("GET", "/v1/job/third?wait="+(10*time.Millisecond).String()+"&index="+index, ""); h.Get("X-Sheaf-Index") != index {
		t.Errorf("a run that is over changed from %s to %s", index, h.Get("X-Sheaf-Index"))
	}
}

// openAPI: the document names every endpoint that the calls above reached.
func (s *served) openAPI(t *testing.T) {
	_, h, body := s.call("GET", "/v1/openapi.json", "")
	var doc struct {
		Paths map[string]map[string]json.RawMessage
	}
	if err := json.Unmarshal([]byte(body), &doc); err != nil || h.Get("Content-Type") != "application/json" {
		t.Fatalf("%v, %s", err, h.Get("Content-Type"))
	}
	for _, want := range []string{"GET /v1/jobs", "PUT /v1/jobs", "DELETE /v1/job/{job}", "GET /v1/job/{job}/logs", "POST /v1/inputs/preview", "GET /v1/metrics"} {
		method, path, _ := strings.Cut(want, " ")
		if _, ok := doc.Paths[path][strings.ToLower(method)]; !ok {
			t.Errorf("%s is not described", want)
		}
	}
}

// metrics: numbers of runs and partitions are there, labelled by neither.
func (s *served) metrics(t *testing.T) {
	_, _, body := s.call("GET", "/v1/metrics", "")
	for _, want := range []string{
		`sheaf_runs{status="succeeded"} 2`, `sheaf_partitions{state="succeeded"} 4`, `sheaf_server_results_total{outcome="committed"}`,
		"sheaf_server_leader 1", "sheaf_partitions_per_second",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("%s is missing", want)
		}
	}
	for _, never := range []string{`partition="`, `run="`, `"first"`} {
		if strings.Contains(body, never) {
			t.Errorf("%s is there", never)
		}
	}
}
