//go:build planted_lostrelease

package fsm

// What a client confirmed to have dropped stays assigned to it.
const (
	faultNoFence     = false
	faultDoubleCount = false
	faultLostRelease = true
)
