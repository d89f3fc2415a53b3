package leader

import (
	"context"
	"fmt"
	"time"

	"github.com/sheaf-run/agent/server/fsm"
)

// Consensus is what a term needs of the log.
type Consensus interface {
	Apply(ctx context.Context, command []byte) (reply any, index uint64, err error)
	VerifyLeader(ctx context.Context) error
	Barrier(ctx context.Context) error
}

// clock is cluster time: it begins where the log left off, or at the wall clock
// where that is ahead, and goes on by the monotonic clock alone, so that no jump
// of the wall clock is seen within a term.
type clock struct {
	baseMs int64
	start  time.Time
}

func newClock(logMs int64) clock {
	now := time.Now()
	return clock{baseMs: max(logMs, now.UnixMilli()), start: now}
}

// nowMs is cluster time, Unix milliseconds.
func (c clock) nowMs() int64 { return c.baseMs + time.Since(c.start).Milliseconds() }

// NowMs is cluster time now.
func (t *Term) NowMs() int64 { return t.clock.nowMs() }

// until is how long it is to a cluster time.
func (c clock) until(ms int64) time.Duration {
	return time.Duration(max(0, ms-c.nowMs())) * time.Millisecond
}

// Apply stamps a command with cluster time, applies it, and sets off what follows
// from it. What it was refused for is in the reply; the error is the log's.
func (t *Term) Apply(ctx context.Context, c *fsm.Command) (fsm.Reply, error) {
	c.TimeMs = t.clock.nowMs()
	b, err := fsm.Encode(c)
	if err != nil {
		return fsm.Reply{}, fmt.Errorf("encode a command: %w", err)
	}
	live := t.mayEndAny(c)
	got, _, err := t.Log.Apply(ctx, b)
	if err != nil {
		return fsm.Reply{}, err
	}
	reply, ok := got.(fsm.Reply)
	if !ok {
		panic(fmt.Sprintf("leader: the state machine replied with a %T", got))
	}
	t.follow(c, reply, live)
	return reply, nil
}

// apply is Apply with what was refused as an error too.
func (t *Term) apply(ctx context.Context, c *fsm.Command) (fsm.Reply, error) {
	reply, err := t.Apply(ctx, c)
	if err == nil && reply.Err != nil {
		err = reply.Err
	}
	return reply, err
}
