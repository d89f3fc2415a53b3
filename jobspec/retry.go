package jobspec

import (
	"fmt"

	"github.com/sheaf-run/agent/sheaf"
)

// retry reads the retry block.
func (b *block) retry(r *sheaf.Retry) {
	b.whole("attempts", &r.Attempts)
	b.duration("delay", &r.Delay)
	b.text("backoff", &r.Backoff)
	b.duration("max_delay", &r.MaxDelay)
	b.flag("other_node", &r.OtherNode)
	b.end()
}

func (c *checker) retry(r *sheaf.Retry) {
	c.whole("retry.attempts", "attempts", r.Attempts)
	c.duration("retry.delay", "delay", r.Delay, 0, MaxDelay)
	c.oneOf("retry.backoff", "backoff", r.Backoff, sheaf.BackoffExponential, sheaf.BackoffConstant)
	c.duration("retry.max_delay", "max_delay", r.MaxDelay, 0, MaxDelay)
	if r.Delay > r.MaxDelay && r.MaxDelay >= 0 {
		c.bad("retry.max_delay", fmt.Sprintf("max_delay %s is below delay %s", r.MaxDelay, r.Delay), "", "raise max_delay, or lower delay")
	}
}

func (w *writer) retry(r sheaf.Retry) {
	w.open("retry", "")
	w.whole("attempts", r.Attempts, defaultAttempts)
	w.duration("delay", r.Delay, defaultDelay)
	w.text("backoff", r.Backoff, sheaf.BackoffExponential)
	w.duration("max_delay", r.MaxDelay, defaultMaxDelay(r.Delay))
	w.flag("other_node", r.OtherNode, true)
	w.close()
}
