package plot

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
)

// TestSVG: a plot is XML, each name stands in the legend once, and what lies outside of a scale is drawn at its edge.
func TestSVG(t *testing.T) {
	linear := Scale{From: 0, To: 10, Ticks: []float64{0, 10}}
	got := SVG([]Panel{
		{Title: "<up>", X: linear, Y: linear, Lines: []Line{{"a & b", [][2]float64{{0, 0}, {5, 5}, {20, -3}}}}, Level: 5},
		{Title: "again", X: linear, Y: Scale{From: 1, To: 100, Log: true}, Lines: []Line{{"a & b", [][2]float64{{0, 1}, {10, 10}}}, {"c", [][2]float64{{0, 0}, {1, 1}}}}},
	})
	for d := xml.NewDecoder(bytes.NewReader(got)); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("the plot: %v\n%s", err, got)
		}
	}
	for text, times := range map[string]int{
		"&lt;up&gt;":                           1,
		">a &amp; b<":                          1,
		"M50.0 270.0 225.0 160.0 400.0 270.0 ": 1, // the last point lies beyond both ends
		"M480.0 270.0 830.0 160.0 ":            1, // ten is half of the way from one to a hundred
		"stroke-dasharray":                     1,
	} {
		if n := strings.Count(string(got), text); n != times {
			t.Errorf("%q stands %d times in\n%s", text, n, got)
		}
	}
}

func TestDecades(t *testing.T) {
	for _, c := range []struct{ values, ticks []float64 }{
		{[]float64{1000, 1e6}, []float64{1000, 1e4, 1e5, 1e6}},
		{[]float64{70, 99}, []float64{10, 100}},
		{[]float64{0, 100}, []float64{100, 1000}},
		{nil, []float64{1, 10}},
	} {
		if got := Decades(c.values); !slices.Equal(got.Ticks, c.ticks) || !got.Log || got.From != c.ticks[0] || got.To != c.ticks[len(c.ticks)-1] {
			t.Errorf("for %v: %+v, want ticks %v", c.values, got, c.ticks)
		}
	}
}
