package leader

import (
	"context"
	"fmt"
	"time"

	"github.com/sheaf-run/agent/server/fsm"
	"github.com/sheaf-run/agent/sheaf"
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
// from it. What it was refused for is in the reply; the error is the log's. Who asks may go before
// the answer comes: what is applied is followed all the same.
func (t *Term) Apply(ctx context.Context, c *fsm.Command) (fsm.Reply, error) {
	c.TimeMs = t.clock.nowMs()
	b, err := fsm.Encode(c)
	if err != nil {
		return fsm.Reply{}, fmt.Errorf("encode a command: %w", err)
	}
	if err := ctx.Err(); err != nil {
		return fsm.Reply{}, gone(err)
	}
	if t.over.Load() { // the next term's may have begun, on this very server
		return fsm.Reply{}, &sheaf.Error{Class: sheaf.Unavailable, Msg: "the leader is changing", Hint: "try again"}
	}
	type answer struct {
		reply fsm.Reply
		err   error
	}
	answered := make(chan answer, 1)
	live := t.mayEndAny(c)
	go func() {
		reply, err := t.append(context.WithoutCancel(ctx), b)
		if err == nil {
			t.follow(c, reply, live)
		}
		answered <- answer{reply, err}
	}()
	select {
	case a := <-answered:
		return a.reply, a.err
	case <-ctx.Done():
		return fsm.Reply{}, gone(ctx.Err())
	}
}

// append puts a command into the log and gives the state machine's reply. Raft answers always: at the
// latest when this server leads no more.
func (t *Term) append(ctx context.Context, command []byte) (fsm.Reply, error) {
	got, _, err := t.Log.Apply(ctx, command)
	if err != nil {
		return fsm.Reply{}, err
	}
	reply, ok := got.(fsm.Reply)
	if !ok {
		panic(fmt.Sprintf("leader: the state machine replied with a %T", got))
	}
	return reply, nil
}

// gone is the error for who asks and does not wait for the answer.
func gone(cause error) error {
	return &sheaf.Error{Class: sheaf.TimedOut, Msg: "the servers did not answer in time", Err: cause, Hint: "it may have been done: asking again is safe"}
}

// apply is Apply with what was refused as an error too.
func (t *Term) apply(ctx context.Context, c *fsm.Command) (fsm.Reply, error) {
	reply, err := t.Apply(ctx, c)
	if err == nil && reply.Err != nil {
		err = reply.Err
	}
	return reply, err
}
