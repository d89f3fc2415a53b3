package httpapi_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sheaf-run/agent/agent"
)

// waiting opens n blocking reads that nothing should answer, and gives the function that ends them all.
// One for which the agent had no place yet asks again.
func (s *served) waiting(path string, n int) (end func()) {
	ctx, cancel := context.WithCancel(context.Background())
	transport := &http.Transport{MaxIdleConnsPerHost: n}
	client := &http.Client{Transport: transport}
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			for ctx.Err() == nil {
				req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.base+path, nil)
				if err != nil {
					panic(err)
				}
				resp, err := client.Do(req)
				if err != nil {
					if ctx.Err() == nil {
						s.t.Errorf("a read that should wait: %v", err)
					}
					return
				}
				resp.Body.Close()
				if resp.StatusCode != http.StatusTooManyRequests && ctx.Err() == nil {
					s.t.Errorf("a read that should wait was answered %s", resp.Status)
					return
				}
			}
		})
	}
	return func() {
		cancel()
		all.Wait()
		transport.CloseIdleConnections()
	}
}

// untilFull waits until all places are taken: the agent refuses the next.
func (s *served) untilFull(path string) {
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
		if status, h, _ := s.call("GET", path+"&wait=1ms", ""); status == http.StatusTooManyRequests {
			if h.Get("Retry-After") == "" {
				s.t.Error("who is refused is not told when to come back")
			}
			return
		}
	}
	s.t.Fatal("the reads do not wait")
}

// waits opens n reads that wait and finds that the agent goes on working, for a bounded price in memory: of
// this process, which is also the one that asks.
func waits(t testing.TB, n int) (bytesEach float64) {
	s := serve(t, func(c *agent.Config) {
		c.HTTP = &agent.HTTPConfig{MaxWaits: n, MaxConnections: 2*n + 100, MaxPerAddress: 2*n + 100}
	})
	s.done("first", 1)
	_, h, _ := s.call("GET", "/v1/job/first", "")
	path := "/v1/job/first?index=" + h.Get("X-Sheaf-Index")
	before := inUse()
	end := s.waiting(path+"&wait=10m", n)
	s.untilFull(path)
	each := float64(inUse()-before) / float64(n)
	s.submitted("second") // others' work goes on, and wakes none of them
	end()
	return each
}

// inUse is the memory that the heap and the stacks hold.
func inUse() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}

// submitted submits a run and looks, without waiting since all places for that are taken, until it is over.
func (s *served) submitted(id string) {
	s.t.Helper()
	if status, _, body := s.call("PUT", "/v1/jobs", `{"id":"`+id+`","job":`+mockJob("noop", 3)+`}`); status != http.StatusOK {
		s.t.Fatalf("submit while reads wait: %d %s", status, body)
	}
	for deadline := time.Now().Add(time.Minute); ; {
		if _, _, body := s.call("GET", "/v1/job/"+id+"/grid", ""); body == "333" {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatal("the run did not end while reads wait")
		}
	}
}

// TestManyWaitingReads: as many as there are places wait and are not woken by others' work, one more is refused,
// and each costs tens of kilobytes, on both sides together.
func TestManyWaitingReads(t *testing.T) {
	if each := waits(t, 500); each > 256<<10 {
		t.Errorf("%.0f bytes for each", each)
	}
}

// BenchmarkWaitingReads is the price of the most reads that may wait unless configured otherwise.
func BenchmarkWaitingReads(b *testing.B) {
	for b.Loop() {
		b.ReportMetric(waits(b, 4096), "bytes/read")
	}
}

// TestTenThousandBlockingReads: from one address, within the limits that agents have unless told otherwise. Some wait,
// the others are refused, and callers from elsewhere notice nothing.
func TestTenThousandBlockingReads(t *testing.T) {
	s := serve(t)
	s.done("first", 1)
	_, h, _ := s.call("GET", "/v1/job/first", "")
	address := strings.TrimPrefix(s.base, "http://")
	request := fmt.Sprintf("GET /v1/job/first?wait=10m&index=%s HTTP/1.1\r\nHost: %s\r\n\r\n", h.Get("X-Sheaf-Index"), address)
	const reads, dialing = 10_000, 64
	var refused, cut atomic.Int64
	var readers, dialers sync.WaitGroup
	kept := make(chan net.Conn, reads)
	rest := make(chan struct{}, reads)
	for range reads {
		rest <- struct{}{}
	}
	close(rest)
	settled := func(c net.Conn) {
		line, err := bufio.NewReader(c).ReadString('\n')
		switch {
		case strings.HasPrefix(line, "HTTP/1.1 429 "):
			refused.Add(1)
		case err != nil:
			cut.Add(1) // at its end those that waited, too
		default:
			t.Errorf("a read that should wait was answered %q", line)
		}
		c.Close()
	}
	for range dialing {
		dialers.Go(func() {
			for range rest {
				c, err := net.Dial("tcp", address)
				if err != nil {
					cut.Add(1)
					continue
				}
				kept <- c
				if _, err := c.Write([]byte(request)); err != nil {
					cut.Add(1)
					c.Close()
					continue
				}
				readers.Go(func() { settled(c) })
			}
		})
	}
	dialers.Wait()
	const perAddress = 1024
	for deadline := time.Now().Add(time.Minute); refused.Load()+cut.Load() < reads-perAddress; {
		if time.Now().After(deadline) {
			t.Fatalf("of %d reads %d were refused and %d cut off: more than %d wait", reads, refused.Load(), cut.Load(), perAddress)
		}
		<-time.After(10 * time.Millisecond)
	}
	if refused.Load() == 0 {
		t.Error("none was told that it is one too many")
	}
	elsewhere := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	transport := &http.Transport{DialContext: elsewhere.DialContext}
	defer transport.CloseIdleConnections()
	other := &served{t, s.base, &http.Client{Transport: transport}}
	other.submitted("second")
	waited := reads - refused.Load() - cut.Load()
	if waited == 0 {
		t.Error("none waits")
	}
	close(kept)
	for c := range kept {
		c.Close()
	}
	readers.Wait()
	for deadline := time.Now().Add(time.Minute); ; { // service returns
		if resp, err := s.http.Get(s.base + "/livez"); err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				break
			}
		}
		if time.Now().After(deadline) {
			t.Fatal("refused after all were closed")
		}
	}
}
