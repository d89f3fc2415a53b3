package leader

import (
	"context"
	"time"

	"github.com/sheaf-run/agent/server/fsm"
)

// tokensLinger is how long a token stays after it has expired: who still uses it is
// told that it has, and tokens that expire together go by one entry.
const tokensLinger = time.Minute

// keepTokens deletes tokens that have expired.
func (t *Term) keepTokens(ctx context.Context) error {
	for {
		snap := t.Store.Snapshot()
		changed := snap.WatchTokens()
		next, now := int64(0), t.clock.nowMs()
		for x := range snap.Tokens() {
			if x.ExpiresMs > 0 && (next == 0 || x.ExpiresMs < next) {
				next = x.ExpiresMs
			}
		}
		var due <-chan time.Time
		if next > 0 {
			if wait := time.Duration(next-now)*time.Millisecond + tokensLinger; wait > 0 {
				due = time.After(wait)
			} else if _, err := t.apply(ctx, &fsm.Command{Body: &fsm.Command_WriteAcl{WriteAcl: &fsm.WriteACL{ReapExpired: true}}}); ctx.Err() != nil {
				return ctx.Err()
			} else if err != nil {
				t.Logger.Error("delete expired tokens", "error", err)
				due = time.After(retryPause)
			} else {
				continue
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		case <-snap.Abandoned():
		case <-due:
		}
	}
}
