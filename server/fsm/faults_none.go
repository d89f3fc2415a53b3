//go:build !planted_nofence && !planted_doublecount && !planted_lostrelease

package fsm

// Faults that builds for the simulation's own test switch on; see faults_*.go.
const (
	faultNoFence     = false
	faultDoubleCount = false
	faultLostRelease = false
)
