package main

import (
	"bytes"
	"fmt"
	"math"
	"slices"
)

// The plot's measures, in its own units.
const (
	width, height = 860, 330
	panel         = 350.0 // width of one of two
	deep          = 220.0
	top, left     = 50.0, 50.0
	apart         = 430.0 // from one panel's left to the next's
)

var colours = []string{"#b0413e", "#d99a2b", "#2a6f97"}

// draw shows beside each other how busy the slots are in the first simulation, and how all of them end.
func draw(all [][]outcome) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="11">`+"\n", width, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="#fff"/>`+"\n", width, height)
	busy(&b, all)
	ends(&b, all)
	for m, name := range measures {
		x := left + float64(m)*130
		fmt.Fprintf(&b, `<rect x="%.0f" y="12" width="10" height="10" fill="%s"/><text x="%.0f" y="21">%s</text>`+"\n", x, colours[m], x+15, name)
	}
	b.WriteString("</svg>\n")
	return b.Bytes()
}

// frame draws a panel's axes with their names.
func frame(b *bytes.Buffer, x float64, title, below string) {
	fmt.Fprintf(b, `<path d="M%.0f %.0fV%.0fH%.0f" fill="none" stroke="#444"/>`+"\n", x, top, top+deep, x+panel)
	fmt.Fprintf(b, `<text x="%.0f" y="%.0f" font-weight="bold">%s</text><text x="%.0f" y="%.0f" text-anchor="middle">%s</text>`+"\n", x, top-8, title, x+panel/2, top+deep+34, below)
}

func tick(b *bytes.Buffer, x, y float64, text, anchor string) {
	fmt.Fprintf(b, `<text x="%.1f" y="%.1f" text-anchor="%s" fill="#444">%s</text>`+"\n", x, y, anchor, text)
}

func line(b *bytes.Buffer, points [][2]float64, colour string) {
	fmt.Fprintf(b, `<path d="M`)
	for _, p := range points {
		fmt.Fprintf(b, "%.1f %.1f ", p[0], p[1])
	}
	fmt.Fprintf(b, `" fill="none" stroke="%s" stroke-width="1.6"/>`+"\n", colour)
}

// busy is the slots that are busy over the time of the first simulation, in times of the ideal schedule.
func busy(b *bytes.Buffer, all [][]outcome) {
	frame(b, left, "Busy slots, seed 1", "time, in times of the ideal schedule")
	most := 0.0
	for m := range all {
		most = max(most, min(all[m][0].ratio(), 4))
	}
	for _, n := range []float64{0, 50, 100} {
		tick(b, left-6, top+deep*(1-n/nodes)+4, fmt.Sprint(n), "end")
	}
	for x := 0.0; x <= most; x += 0.5 {
		tick(b, left+panel*x/most, top+deep+16, fmt.Sprint(x), "middle")
	}
	for m := range all {
		o := &all[m][0]
		points, n, at := [][2]float64{}, 0, -1.0
		for _, s := range o.steps {
			n += s.by
			x := left + panel*float64(s.at)/o.ideal()/most
			if x-at >= 1 && x <= left+panel {
				points = append(points, [2]float64{x, top + deep*(1-float64(n)/nodes)})
				at = x
			}
		}
		line(b, append(points, [2]float64{min(left+panel*o.ratio()/most, left+panel), top + deep*(1-float64(n)/nodes)}), colours[m])
	}
}

// ends are the ends of all simulations, from the best to the worst, on a scale of factors.
func ends(b *bytes.Buffer, all [][]outcome) {
	x0 := left + apart
	frame(b, x0, "End, in times of the ideal schedule", "simulations, the best first")
	y := func(ratio float64) float64 { return top + deep*(1-min(math.Log(ratio)/math.Log(8), 1)) }
	for _, n := range []float64{1, atMost, 1.5, 2, 4, 8} {
		tick(b, x0-6, y(n)+4, fmt.Sprint(n), "end")
	}
	fmt.Fprintf(b, `<path d="M%.0f %.1fh%.0f" stroke="#888" stroke-dasharray="4 3"/>`+"\n", x0, y(atMost), panel)
	for m := range all {
		var ratios []float64
		for i := range all[m] {
			ratios = append(ratios, all[m][i].ratio())
		}
		slices.Sort(ratios)
		var points [][2]float64
		for i, r := range ratios {
			points = append(points, [2]float64{x0 + panel*(float64(i)+0.5)/float64(len(ratios)), y(r)})
		}
		line(b, points, colours[m])
	}
}
