// Package plot draws lines beside each other as SVG: what the benchmarks and simulations measured, for the documentation.
package plot

import (
	"bytes"
	"fmt"
	"html"
	"math"
	"strconv"
)

// The measures of a plot, in its own units.
const (
	panelWidth  = 350.0
	panelHeight = 220.0
	top, left   = 50.0, 50.0
	apart       = 430.0 // from one panel's left to the next's
	below       = 60.0
	letter      = 6.0 // the width of one, more or less
)

// colours are those of lines, by the order in which their names first come.
var colours = []string{"#b0413e", "#d99a2b", "#2a6f97", "#4f8a4c", "#6d4c91", "#555555"}

// Scale is one axis.
type Scale struct {
	From, To float64 // what lies outside is drawn at the edge
	Log      bool    // From must be more than 0
	Ticks    []float64
}

// Line is values by their place. Lines with one name have one colour, and one entry in the legend.
type Line struct {
	Name   string
	Points [][2]float64
}

// Panel is one of the plots beside each other.
type Panel struct {
	Title, Below string // what is up and what is across
	X, Y         Scale
	Lines        []Line
	Level        float64 // a dashed line across, as of a target; 0 for none
}

// SVG draws panels from left to right, the legend above.
func SVG(panels []Panel) []byte {
	var b bytes.Buffer
	width, height := left+apart*float64(len(panels))-30, top+panelHeight+below
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %.0f" font-family="sans-serif" font-size="11">`+"\n", width, height)
	fmt.Fprintf(&b, `<rect width="%.0f" height="%.0f" fill="#fff"/>`+"\n", width, height)
	named := map[string]string{}
	x := left
	for i, p := range panels {
		for _, l := range p.Lines {
			if named[l.Name] != "" {
				continue
			}
			named[l.Name] = colours[len(named)%len(colours)]
			fmt.Fprintf(&b, `<rect x="%.0f" y="12" width="10" height="10" fill="%s"/><text x="%.0f" y="21">%s</text>`+"\n", x, named[l.Name], x+15, html.EscapeString(l.Name))
			x += 35 + letter*float64(len(l.Name))
		}
		p.draw(&b, left+apart*float64(i), named)
	}
	b.WriteString("</svg>\n")
	return b.Bytes()
}

func (p *Panel) draw(b *bytes.Buffer, x0 float64, named map[string]string) {
	fmt.Fprintf(b, `<path d="M%.0f %.0fV%.0fH%.0f" fill="none" stroke="#444"/>`+"\n", x0, top, top+panelHeight, x0+panelWidth)
	fmt.Fprintf(b, `<text x="%.0f" y="%.0f" font-weight="bold">%s</text>`+"\n", x0, top-8, html.EscapeString(p.Title))
	fmt.Fprintf(b, `<text x="%.0f" y="%.0f" text-anchor="middle">%s</text>`+"\n", x0+panelWidth/2, top+panelHeight+34, html.EscapeString(p.Below))
	x := func(v float64) float64 { return x0 + panelWidth*p.X.share(v) }
	y := func(v float64) float64 { return top + panelHeight*(1-p.Y.share(v)) }
	for _, v := range p.X.Ticks {
		fmt.Fprintf(b, `<text x="%.1f" y="%.1f" text-anchor="middle" fill="#444">%s</text>`+"\n", x(v), top+panelHeight+16, short(v))
	}
	for _, v := range p.Y.Ticks {
		fmt.Fprintf(b, `<text x="%.1f" y="%.1f" text-anchor="end" fill="#444">%s</text>`+"\n", x0-6, y(v)+4, short(v))
	}
	if p.Level != 0 {
		fmt.Fprintf(b, `<path d="M%.0f %.1fh%.0f" stroke="#888" stroke-dasharray="4 3"/>`+"\n", x0, y(p.Level), panelWidth)
	}
	for _, l := range p.Lines {
		b.WriteString(`<path d="M`)
		for _, at := range l.Points {
			fmt.Fprintf(b, "%.1f %.1f ", x(at[0]), y(at[1]))
		}
		fmt.Fprintf(b, `" fill="none" stroke="%s" stroke-width="1.6"/>`+"\n", named[l.Name])
	}
}

// share is how far along the axis a value lies, from 0 to 1.
func (s Scale) share(v float64) float64 {
	from, to := s.From, s.To
	if s.Log {
		v, from, to = math.Log(max(v, from)), math.Log(from), math.Log(to)
	}
	return min(max((v-from)/(to-from), 0), 1)
}

// short writes the value of a tick, thousands and millions with a letter.
func short(v float64) string {
	switch {
	case v >= 1e6:
		return strconv.FormatFloat(v/1e6, 'g', 3, 64) + " M"
	case v >= 1e4:
		return strconv.FormatFloat(v/1e3, 'g', 3, 64) + " k"
	}
	return strconv.FormatFloat(v, 'g', 4, 64)
}

// Decades are a logarithmic axis that holds all values, with a tick at each power of ten.
func Decades(values []float64) Scale {
	s := Scale{From: math.Inf(1), To: math.Inf(-1), Log: true}
	for _, v := range values {
		if v > 0 {
			s.From, s.To = min(s.From, math.Floor(math.Log10(v))), max(s.To, math.Ceil(math.Log10(v)))
		}
	}
	if s.From > s.To {
		s.From, s.To = 0, 0
	}
	s.To = max(s.To, s.From+1)
	for e := s.From; e <= s.To; e++ {
		s.Ticks = append(s.Ticks, math.Pow(10, e))
	}
	s.From, s.To = s.Ticks[0], s.Ticks[len(s.Ticks)-1]
	return s
}
