package scheduler

import "time"

const (
	// hopeless is the share of failures from which on a node is no place for what has but one chance.
	hopeless = 0.5
	// wellShare is the share of the run's own executions that may fail on a node while it is said that the run goes well there.
	wellShare = 0.1
	// aversion is how much fuller a node counts than it is, in units of its slots: others are filled before it.
	aversion = 1.0
)

// avoid is the share of executions to expect to fail by the node's doing, where it stands out. How
// the run itself goes there says more than how others do.
func (c *candidate) avoid() float64 {
	if ended := c.Succeeded + c.Failed; ended >= trustAfter && float64(c.Failed) <= wellShare*float64(ended) {
		return 0
	}
	return min(max(c.Avoid, 0), 1)
}

func (c *candidate) shunned() bool { return c.avoid() >= hopeless }

// resting reports whether nodes that rest are to be left alone: there is another that can take the work, if
// only later.
func resting(candidates []candidate) bool {
	for i := range candidates {
		if c := &candidates[i]; c.Rests <= 0 || !c.shunned() {
			return true
		}
	}
	return false
}

// avoided says which candidates are filled after the others.
func avoided(kept []candidate) []Reason {
	var list collector
	for i := range kept {
		c := &kept[i]
		if c.avoid() > 0 {
			c.preference -= aversion
			list.add(Failing, "others are preferred to it: "+c.AvoidWhy, c.ID)
		}
	}
	return list.reasons()
}

// sooner is the lesser of two waits, of which 0 is for ever.
func sooner(a, b time.Duration) time.Duration {
	if a == 0 {
		return b
	}
	return min(a, b)
}
