package rpc

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/server/fsm"
	"github.com/sheaf-run/agent/sheaf"
)

// results makes n results with texts of the given size on every so many.
func results(first, n, textEvery, textSize int) *wire.Results {
	r := &wire.Results{Run: "r", Generation: 1, Node: "n", Session: 1}
	for i := range n {
		r.Partition = append(r.Partition, uint32(first+i))
		r.Attempt = append(r.Attempt, 1)
		r.Outcome = append(r.Outcome, byte(sheaf.OutcomeSucceeded))
		r.Failure = append(r.Failure, 0)
		r.ExitCode = append(r.ExitCode, 0)
		r.StartedMs = append(r.StartedMs, 1_700_000_000_000)
		r.DurationMs = append(r.DurationMs, 1<<31)
		r.CpuMs = append(r.CpuMs, 1<<31)
		r.PeakMemoryKib = append(r.PeakMemoryKib, 1<<31)
		r.Digest = append(r.Digest, bytes.Repeat([]byte{byte(i)}, 32)...)
		if textEvery > 0 && i%textEvery == 0 {
			r.Text = append(r.Text, &wire.Text{Item: uint32(i), Message: string(bytes.Repeat([]byte("m"), textSize/2)), Stderr: string(bytes.Repeat([]byte("e"), textSize/2))})
		}
	}
	return r
}

// Whatever is cut, the pieces are well-formed, hold everything once and in order, and fit a command.
func TestCutResults(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 3000).Draw(t, "n")
		r := results(5, n, rapid.IntRange(0, 4).Draw(t, "every"), rapid.IntRange(0, 3000).Draw(t, "size"))
		next, texts := 5, 0
		for _, p := range cutResults(r) {
			if err := fsm.CheckResults(p); err != nil {
				t.Fatal(err)
			}
			if size := proto.Size(p); size > commitBytes {
				t.Fatalf("a piece of %d items has %d bytes", len(p.Partition), size)
			}
			for _, i := range p.Partition {
				if int(i) != next {
					t.Fatalf("partition %d where %d is next", i, next)
				}
				next++
			}
			for _, x := range p.Text {
				if len(r.Text) <= texts || r.Text[texts].Message != x.Message || p.Partition[x.Item] != r.Partition[r.Text[texts].Item] {
					t.Fatalf("text %d belongs to another item", texts)
				}
				texts++
			}
		}
		if next != 5+n || texts != len(r.Text) {
			t.Fatalf("%d of %d items and %d of %d texts came", next-5, n, texts, len(r.Text))
		}
	})
}

// slowLog answers a command each time it is released.
type slowLog struct {
	mu       sync.Mutex
	sizes    []int // results of each command
	released chan struct{}
}

func (l *slowLog) Apply(ctx context.Context, c *fsm.Command) (fsm.Reply, error) {
	if _, err := fsm.Encode(c); err != nil {
		return fsm.Reply{}, err
	}
	reply, err := instantLog{}.Apply(ctx, c)
	n := 0
	for _, a := range reply.Answers {
		n += len(a.Partition)
	}
	l.mu.Lock()
	l.sizes = append(l.sizes, n)
	l.mu.Unlock()
	select {
	case <-l.released:
		return reply, err
	case <-ctx.Done():
		return fsm.Reply{}, ctx.Err()
	}
}

// One result goes at once; what comes while it is written goes together in the next
// command; more than fits a command goes beside it.
func TestGroupCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &slowLog{released: make(chan struct{})}
		var mu sync.Mutex
		answered := 0
		h := &Hub{sessions: map[sheaf.NodeID]*session{}}
		c := newCollector(log, func(_ *wire.Results, a *wire.Answers) {
			mu.Lock()
			defer mu.Unlock()
			answered += len(a.Partition)
		}, h.answered)
		ctx, cancel := context.WithCancel(t.Context())
		go func() { _ = c.run(ctx) }()
		s := &session{hub: h, node: "n", woken: make(chan struct{}, 1), cancel: func(error) {}}
		next := 0
		add := func(n int) {
			if err := c.add(ctx, results(next, n, 0, 0), s); err != nil {
				t.Error(err)
			}
			next += n
		}
		add(1)
		synctest.Wait()
		for range 40 {
			add(1)
		}
		synctest.Wait()
		if got := fmt.Sprint(log.sizes); got != "[1]" {
			t.Fatalf("commands of %s results, want the first alone", got)
		}
		log.released <- struct{}{}
		synctest.Wait()
		if got := fmt.Sprint(log.sizes); got != "[1 40]" || answered != 1 {
			t.Fatalf("commands of %s results, %d answered; want the rest together", got, answered)
		}
		go add(5000)
		synctest.Wait()
		if len(log.sizes) != 4+1 {
			t.Fatalf("commands of %v results, want %d under way at once", log.sizes, commitsUnderWay)
		}
		for answered < next {
			log.released <- struct{}{}
			synctest.Wait()
		}
		cancel()
		synctest.Wait()
		if got := len(s.out); answered != 5041 || got < 41 {
			t.Errorf("%d answered in %d messages", answered, got)
		}
	})
}

// BenchmarkGroupCommit folds single results of many clients.
func BenchmarkGroupCommit(b *testing.B) {
	var seen sync.WaitGroup
	h := &Hub{sessions: map[sheaf.NodeID]*session{}}
	c := newCollector(instantLog{}, func(_ *wire.Results, a *wire.Answers) { seen.Add(-len(a.Partition)) }, h.answered)
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	go func() { _ = c.run(ctx) }()
	s := &session{hub: h, node: "n", woken: make(chan struct{}, 1), cancel: func(error) {}}
	r := results(0, 1, 0, 0)
	for b.Loop() {
		seen.Add(1)
		if err := c.add(ctx, r, s); err != nil {
			b.Fatal(err)
		}
		s.mu.Lock()
		s.out = s.out[:0]
		s.mu.Unlock()
	}
	seen.Wait()
}

type instantLog struct{}

func (instantLog) Apply(_ context.Context, c *fsm.Command) (fsm.Reply, error) {
	var reply fsm.Reply
	for _, r := range c.GetCommitPartitions().Results {
		reply.Answers = append(reply.Answers, &wire.Answers{Partition: r.Partition, Attempt: r.Attempt, Verdict: make([]byte, len(r.Partition))})
	}
	return reply, nil
}

// TestGather: the more clients, the longer each gathers, so that the leader's messages do not become more.
func TestGather(t *testing.T) {
	for clients, want := range map[int]time.Duration{1: leastGather, 500: leastGather, 1000: 500 * time.Millisecond, 100_000: mostGather} {
		if got := gather(clients); got != want {
			t.Errorf("%d clients gather for %v, want %v", clients, got, want)
		}
	}
}
