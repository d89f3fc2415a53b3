package scheduler

import "github.com/sheaf-run/agent/sheaf"

// Largest are at most `most` of a run's large partitions that wait for their first attempt. They are asked for alone,
// before all others: they spread over the nodes by number as any do, each node begins what it is given in the order in which it came, and
// so none of them begins when the rest is nearly over. What failed once or was taken back goes as others do.
func Largest(large []uint32, most int, waits func(partition int) bool) (ready sheaf.Ranges) {
	for _, p := range large {
		if most == 0 {
			break
		}
		if waits(int(p)) {
			ready = ready.Add(int(p))
			most--
		}
	}
	return ready
}
