//go:build planted_nofence

package fsm

// Any attempt that succeeded commits, whether it is valid or not.
const (
	faultNoFence     = true
	faultDoubleCount = false
	faultLostRelease = false
)
