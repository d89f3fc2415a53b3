//go:build planted_doublecount

package fsm

// A failure that is reported again counts again.
const (
	faultNoFence     = false
	faultDoubleCount = true
	faultLostRelease = false
)
