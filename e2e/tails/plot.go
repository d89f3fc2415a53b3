package main

import (
	"slices"

	"github.com/sheaf-run/agent/e2e/plot"
)

// mostShown is the longest run that the plot of busy slots shows, in times of the ideal schedule.
const mostShown = 4.0

// draw shows beside each other how busy the slots are in the first simulation, and how all of them end.
func draw(all [][]outcome) []byte {
	return plot.SVG([]plot.Panel{busy(all), ends(all)})
}

// busy is the slots that are busy over the time of the first simulation, in times of the ideal schedule.
func busy(all [][]outcome) plot.Panel {
	p := plot.Panel{Title: "Busy slots, seed 1", Below: "time, in times of the ideal schedule", Y: plot.Scale{To: nodes, Ticks: []float64{0, nodes / 2, nodes}}}
	for m := range all {
		p.X.To = max(p.X.To, min(all[m][0].ratio(), mostShown))
	}
	for x := 0.0; x <= p.X.To; x += 0.5 {
		p.X.Ticks = append(p.X.Ticks, x)
	}
	for m := range all {
		o := &all[m][0]
		var points [][2]float64
		n, at := 0, -1.0
		for _, s := range o.steps {
			n += s.by
			if x := float64(s.at) / o.ideal(); x <= p.X.To && x-at >= p.X.To/350 { // not finer than can be seen
				points, at = append(points, [2]float64{x, float64(n)}), x
			}
		}
		points = append(points, [2]float64{min(o.ratio(), p.X.To), float64(n)})
		p.Lines = append(p.Lines, plot.Line{Name: measures[m], Points: points})
	}
	return p
}

// ends are the ends of all simulations, from the best to the worst, on a scale of factors.
func ends(all [][]outcome) plot.Panel {
	p := plot.Panel{Title: "End, in times of the ideal schedule", Below: "simulations, the best first", Level: atMost,
		X: plot.Scale{To: 1}, Y: plot.Scale{From: 1, To: 8, Log: true, Ticks: []float64{1, atMost, 1.5, 2, 4, 8}}}
	for m := range all {
		var ratios []float64
		for i := range all[m] {
			ratios = append(ratios, all[m][i].ratio())
		}
		slices.Sort(ratios)
		var points [][2]float64
		for i, r := range ratios {
			points = append(points, [2]float64{(float64(i) + 0.5) / float64(len(ratios)), r})
		}
		p.Lines = append(p.Lines, plot.Line{Name: measures[m], Points: points})
	}
	return p
}
