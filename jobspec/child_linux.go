package jobspec

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// childPatience is how long a child may take by the clock, for one that neither computes nor ends. The kernel bounds its
// CPU time, which does not run on while a busy machine leaves it waiting.
const childPatience = time.Minute

// limitProcess sets the bounds that the kernel keeps. RLIMIT_DATA counts what is
// writable; RLIMIT_AS would count the address space that Go reserves
// and never touches.
func limitProcess() error {
	for _, l := range []struct {
		name     string
		resource int
		max      uint64
	}{
		{"data", unix.RLIMIT_DATA, childData},
		{"cpu", unix.RLIMIT_CPU, uint64(childTime.Seconds()) + 1},
		{"core", unix.RLIMIT_CORE, 0},
		{"file size", unix.RLIMIT_FSIZE, 0},
	} {
		if err := unix.Setrlimit(l.resource, &unix.Rlimit{Cur: l.max, Max: l.max}); err != nil {
			return fmt.Errorf("set the %s limit: %w", l.name, err)
		}
	}
	return nil
}
