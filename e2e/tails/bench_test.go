package main

import "testing"

// simulated is how many runs a figure is taken over.
const simulated = 40

// BenchmarkTarget tells how near the ends of the target's runs come to the ideal schedule, with what the leader does about
// tails and without: the medians, and what that costs.
func BenchmarkTarget(b *testing.B) {
	for range b.N {
		without := simulations(loads[0], nothing, simulated)
		with := simulations(loads[0], backups, simulated)
		for unit, figure := range map[string]struct {
			list []outcome
			of   func(*outcome) float64
		}{
			"without":   {without, (*outcome).ratio},
			"with":      {with, (*outcome).ratio},
			"in-vain-%": {with, func(o *outcome) float64 { return 100 * o.inVain() }},
		} {
			median, most := middle(figure.list, figure.of)
			b.ReportMetric(median, unit)
			b.ReportMetric(most, unit+"-at-most")
		}
	}
}
