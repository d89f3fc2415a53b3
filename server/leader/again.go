package leader

import (
	"context"
	"time"
)

// retryPause is the wait after a command of the leader's own that could not be applied.
const retryPause = time.Second

// again does something at once, whenever it is woken, and when its last time said that the next will be due; 0 is not before it is
// woken. What failed is logged under that name and done again soon. It returns when ctx ends.
func (t *Term) again(ctx context.Context, what string, woken <-chan struct{}, do func(context.Context) (next time.Duration, err error)) error {
	for {
		next, err := do(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			t.Logger.Error(what, "error", err)
			next = sooner(next, retryPause)
		}
		var due <-chan time.Time
		if next > 0 {
			due = time.After(next)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-due:
		case <-woken:
		}
	}
}

// sooner is the lesser of two waits, of which 0 is for ever.
func sooner(a, b time.Duration) time.Duration {
	if a == 0 {
		return b
	}
	if b == 0 {
		return a
	}
	return min(a, b)
}

// pause waits, unless ctx ends first.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
