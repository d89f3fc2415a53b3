package httpapi_test

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/sheaf-run/agent/agent"
	"github.com/sheaf-run/agent/api"
	"github.com/sheaf-run/agent/sheaf"
)

// client is the Go client of the agent.
func (s *served) client() *api.Client {
	s.t.Helper()
	c, err := api.New(api.Config{Address: s.base})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(c.Close)
	return c
}

// collect reads events until one is of the type.
func collect(t *testing.T, c *api.Client, o api.EventOptions, last string) (got []sheaf.Event, lines []api.EventLine) {
	t.Helper()
	for line, err := range c.Events(t.Context(), o) {
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, line)
		for _, e := range line.Events {
			if got = append(got, e); e.Type == last {
				return got, lines
			}
		}
	}
	t.Fatal("the stream ended")
	return nil, nil
}

func types(events []sheaf.Event) string {
	var all []string
	for _, e := range events {
		all = append(all, e.Type+" "+e.Status)
	}
	return strings.Join(all, ", ")
}

func TestEvents(t *testing.T) {
	s := serve(t, func(c *agent.Config) { c.HTTP = &agent.HTTPConfig{Beat: "20ms"} })
	c := s.client()
	s.done("first", 3)
	status, _, body := s.call("DELETE", "/v1/job/first", "")
	if status != http.StatusNoContent {
		t.Fatal(body)
	}
	zero := uint64(0)
	all, _ := collect(t, c, api.EventOptions{After: &zero}, "RunDeleted")
	for _, want := range []string{"NodeRegistered", "RunRegistered", "PartitionsPlaced", "PartitionsSucceeded", "RunStatusChanged succeeded"} {
		if !strings.Contains(types(all), want) {
			t.Errorf("no %s in %s", want, types(all))
		}
	}
	runs, _ := collect(t, c, api.EventOptions{After: &zero, Topics: []sheaf.Topic{sheaf.TopicRun}, Filter: `was == "running" || type == "RunDeleted"`}, "RunDeleted")
	if got := types(runs); got != "RunStatusChanged succeeded, RunDeleted succeeded" {
		t.Errorf("filtered: %s", got)
	}
	rest, _ := collect(t, c, api.EventOptions{After: &runs[0].Index, Topics: []sheaf.Topic{sheaf.TopicRun}}, "RunDeleted")
	if got := types(rest); got != "RunDeleted succeeded" {
		t.Errorf("resumed: %s", got)
	}
	if got, _ := collect(t, c, api.EventOptions{After: &zero, Namespace: "other"}, "NodeRegistered"); types(got) != "NodeRegistered ready" {
		t.Errorf("of another namespace: %s", types(got))
	}

	// Beats come without news, and only news from now on are told.
	beats := 0
	for line, err := range c.Events(t.Context(), api.EventOptions{Topics: []sheaf.Topic{sheaf.TopicACL}}) {
		if err != nil {
			t.Fatal(err)
		}
		if len(line.Events) > 0 || line.Index < runs[1].Index {
			t.Fatalf("%+v", line)
		}
		if beats++; beats == 3 {
			break
		}
	}
	for path, says := range map[string]string{
		"/v1/events?topic=nope":       `"field":"topic","limit":"run, partition`,
		"/v1/events?filter=nope":      `"field":"filter"`,
		"/v1/events?index=-1":         `"field":"index"`,
		"/v1/events?since=1":          `it takes: topic, filter, index, namespace`,
		"/v1/agent/monitor?level=x":   `"field":"level"`,
		"/v1/agent/monitor?agent=foo": `no agent is called`,
	} {
		if status, _, body := s.call("GET", path, ""); status < 400 || !strings.Contains(body, says) {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
}

// TestServerSentEvents: a browser's EventSource gets the same, and resumes by its own header.
func TestServerSentEvents(t *testing.T) {
	s := serve(t)
	s.done("first", 1)
	read := func(last string) (text string, id string) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.base+"/v1/events?topic=run&index=0", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Accept", "text/event-stream")
		if last != "" {
			req.Header.Set("Last-Event-ID", last)
		}
		resp, err := s.http.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if got := resp.Header.Get("Content-Type"); got != "text/event-stream" {
			t.Fatalf("sent as %s", got)
		}
		for in := bufio.NewScanner(resp.Body); in.Scan() && in.Text() != ""; {
			if n, ok := strings.CutPrefix(in.Text(), "id: "); ok {
				id = n
			}
			text += in.Text() + "\n"
		}
		return text, id
	}
	text, id := read("")
	if !strings.Contains(text, `data: {"index":`) || !strings.Contains(text, "RunRegistered") || id == "" {
		t.Errorf("got %s", text)
	}
	if text, _ := read(id); strings.Contains(text, "RunRegistered") {
		t.Errorf("resumed after %s: %s", id, text)
	}
}

func TestMonitor(t *testing.T) {
	s := serve(t, func(c *agent.Config) { c.HTTP = &agent.HTTPConfig{Beat: "20ms"} })
	ran := false
	for line, err := range s.client().Monitor(t.Context(), api.MonitorOptions{Level: "debug"}) {
		if err != nil {
			t.Fatal(err)
		}
		if !ran { // the stream is open: what is logged from here on comes
			ran = true
			s.done("r", 1)
		}
		if line.Level == "DEBUG" && line.Attrs["part"] != "" {
			return
		}
	}
	t.Error("the stream ended")
}

// TestWaitsAreBounded: beyond the limit reads that wait are refused, and service returns.
func TestWaitsAreBounded(t *testing.T) {
	s := serve(t, func(c *agent.Config) { c.HTTP = &agent.HTTPConfig{MaxWaits: 3} })
	s.done("first", 1)
	_, h, _ := s.call("GET", "/v1/job/first", "")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan int, 20)
	for range 20 {
		go func() {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.base+"/v1/job/first?wait=10m&index="+h.Get("X-Sheaf-Index"), nil)
			if err != nil {
				panic(err)
			}
			resp, err := s.http.Do(req)
			if err != nil {
				ended <- 0
				return
			}
			defer resp.Body.Close()
			ended <- resp.StatusCode
		}()
	}
	for range 17 {
		if got := <-ended; got != http.StatusTooManyRequests {
			t.Errorf("refused with %d", got)
		}
	}
	if status, _, body := s.call("GET", "/v1/jobs", ""); status != http.StatusOK {
		t.Errorf("a read that does not wait: %d %s", status, body)
	}
	if status, header, body := s.call("GET", "/v1/events", ""); status != http.StatusTooManyRequests || header.Get("Retry-After") == "" || !strings.Contains(body, `"limit":"3 at once"`) {
		t.Errorf("a stream beyond: %d %s", status, body)
	}
	cancel()
	for range 3 {
		if got := <-ended; got != 0 {
			t.Errorf("a waiting read ended with %d", got)
		}
	}
	// The agent learns that they have gone; then there is room again.
	for {
		status, _, _ := s.call("GET", fmt.Sprintf("/v1/job/first?wait=10ms&index=%s", h.Get("X-Sheaf-Index")), "")
		if status == http.StatusOK {
			return
		}
	}
}
