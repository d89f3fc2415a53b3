package exec

import "time"

// StrayPatience sets how long an open pipe is waited for, until the function is called.
func StrayPatience(d time.Duration) (restore func()) {
	was := strayPatience
	strayPatience = d
	return func() { strayPatience = was }
}
