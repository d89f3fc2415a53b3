//go:build !linux

package jobspec

// childPatience is how long a child may take by the clock.
const childPatience = childTime

// limitProcess leaves memory to Go's own limit and time to the parent.
func limitProcess() error { return nil }
