package simtest

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"strings"

	"github.com/sheaf-run/agent/data/publish"
	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/server/fsm"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/sheaf"
)

// publish writes a result, has it sealed, and puts its manifest: as the clients' merges do, by the code that
// they do it with.
func (c *client) publish(x execution, r *state.Run, result [32]byte) {
	if c.publishing[x] || !c.holds(x) {
		return
	}
	c.publishing[x] = true
	id, generation := r.ID, r.Generation
	text := content(x.run, x.attempt, hex.EncodeToString(result[:]))
	line, err := json.Marshal(sheaf.File{Output: "o", Path: "f", Size: int64(len(text)), Parts: []sheaf.Part{{Size: int64(len(text)), SHA256: digest(text)}}})
	if err != nil {
		panic(err)
	}
	write := func(ctx context.Context, p publish.Place) error {
		_, err := publish.Write(ctx, p, publish.Input{
			Run: id, Job: r.Job.Name, Generation: generation, Attempt: x.attempt, Result: hex.EncodeToString(result[:]), Manifest: bytes.NewReader(line),
			Open: func(context.Context, *sheaf.File, sheaf.Part) (io.ReadCloser, error) {
				return io.NopCloser(strings.NewReader(text)), nil
			},
			Damaged: func(p sheaf.Part, reason string) { panic(reason) },
		})
		return err
	}
	wanted := func() bool { return c.holds(x) }
	c.do(wanted, write, func(err error) {
		switch {
		case !c.holds(x):
			c.discard(x)
		case err != nil:
			c.discard(x)
			c.end(x, resultOf(x, sheaf.OutcomeFailed))
		default:
			c.seal(x, &wire.SealResultRequest{Run: x.run, MergeAttempt: x.attempt, Digest: result[:]}, func() {
				c.putManifest(x, generation, x.attempt, result)
			}, func() { c.discard(x) })
		}
	})
}

// putManifest publishes what an attempt has sealed, this or an earlier one, and says so.
func (c *client) putManifest(x execution, generation, attempt uint32, result [32]byte) {
	if attempt != x.attempt {
		if c.publishing[x] || !c.holds(x) {
			return
		}
		c.publishing[x] = true
		c.w.out.Inherited++
	}
	finish := func(ctx context.Context, p publish.Place) error {
		return publish.Finish(ctx, p, sheaf.RunID(x.run), attempt, hex.EncodeToString(result[:]))
	}
	c.do(func() bool { return c.holds(x) }, finish, func(err error) {
		switch {
		case !c.holds(x):
		case errors.Is(err, publish.ErrStale):
			c.end(x, resultOf(x, sheaf.OutcomeSucceeded))
		case err != nil:
			c.end(x, resultOf(x, sheaf.OutcomeFailed))
		default:
			c.seal(x, &wire.SealResultRequest{Run: x.run, Generation: generation, MergeAttempt: x.attempt, Digest: result[:], Published: true}, func() {
				c.end(x, resultOf(x, sheaf.OutcomeSucceeded))
			}, func() {})
		}
	})
}

// discard deletes what an attempt has written that nobody wants.
func (c *client) discard(x execution) {
	c.do(nil, func(ctx context.Context, p publish.Place) error {
		return publish.Discard(ctx, p, sheaf.RunID(x.run), x.attempt)
	}, func(error) {}) // what is left then is the next attempt's to delete
}

func sweeping(run sheaf.RunID) func(context.Context, publish.Place) error {
	return func(ctx context.Context, p publish.Place) error { return publish.Sweep(ctx, p, run) }
}

// seal asks until it is answered, or not wanted any more: then it is open whether it stands sealed.
func (c *client) seal(x execution, req *wire.SealResultRequest, sealed, superseded func()) {
	w, answered := c.w, false
	var again func()
	again = func() {
		if answered || !c.holds(x) {
			return
		}
		c.later(w.between(200, 600), again)
		k := &wire.SealResultRequest{Run: req.Run, Generation: req.Generation, MergeAttempt: req.MergeAttempt, Digest: req.Digest, Published: req.Published, Node: string(c.id), Session: c.session}
		w.call(c, func(l *leader) {
			l.propose(&fsm.Command{Body: &fsm.Command_SealResult{SealResult: &fsm.SealResult{Request: k}}}, func(r fsm.Reply) {
				w.back(c, func() {
					if answered || !c.holds(x) || r.Verdict == wire.Verdict_VERDICT_RESEND {
						return
					}
					answered = true
					if r.Verdict == wire.Verdict_VERDICT_COMMITTED || r.Verdict == wire.Verdict_VERDICT_ALREADY {
						sealed()
						return
					}
					superseded()
					c.end(x, resultOf(x, sheaf.OutcomeSucceeded))
				})
			})
		})
	}
	again()
}

func resultOf(x execution, outcome sheaf.Outcome) result {
	r := result{execution: x, outcome: outcome, code: -1}
	if outcome == sheaf.OutcomeFailed {
		r.kind = sheaf.FailDriver
	}
	return r
}
