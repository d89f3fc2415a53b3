package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"text/tabwriter"
	"time"
)

// Figure is one thing measured.
type Figure struct {
	// Key names the promise that the figure is held to, as P1 or P11.memory; "" for none.
	Key    string  `json:"key,omitempty"`
	What   string  `json:"what"`
	Value  float64 `json:"value"`
	Unit   string  `json:"unit"`
	Target float64 `json:"target,omitempty"` // in the same unit; 0 where the figure is for information
	AtMost bool    `json:"at_most"`          // Target is an upper bound; a lower one otherwise

	Limit     float64 `json:"limit,omitempty"` // what the parts below do at best, in the same unit; 0 for none
	LimitWhat string  `json:"limit_what,omitempty"`
	Detail    string  `json:"detail,omitempty"`

	// Series names the line of a plot that the figure is a point of, and Size its place: the run's partitions.
	Series string `json:"series,omitempty"`
	Size   int    `json:"size,omitempty"`
}

// Met tells whether the target is reached; a figure without one always is.
func (f Figure) Met() bool {
	if f.Target == 0 {
		return true
	}
	if f.AtMost {
		return f.Value <= f.Target
	}
	return f.Value >= f.Target
}

// ratio is the share of the limit that is reached: 1 is the limit itself.
func (f Figure) ratio() float64 {
	if f.Limit == 0 || f.Value == 0 {
		return 0
	}
	if f.AtMost {
		return f.Limit / f.Value
	}
	return f.Value / f.Limit
}

func (f Figure) target() string {
	switch {
	case f.Target == 0:
		return ""
	case f.AtMost:
		return "≤ " + amount(f.Target, f.Unit)
	default:
		return "≥ " + amount(f.Target, f.Unit)
	}
}

func (f Figure) verdict() string {
	switch {
	case f.Target == 0:
		return ""
	case f.Met():
		return "met"
	default:
		return "MISSED"
	}
}

func (f Figure) String() string {
	s := f.What + ": " + amount(f.Value, f.Unit)
	if f.Detail != "" {
		s += " (" + f.Detail + ")"
	}
	return s
}

// amount writes a number as precisely as it means something.
func amount(v float64, unit string) string {
	digits := 0
	switch {
	case unit == "x": // times something, mostly near 1
		digits = 3
	case v < 100 && v > -100:
		digits = 1
	}
	s := strconv.FormatFloat(v, 'f', digits, 64)
	if digits == 0 {
		s = thousands(s)
	}
	return s + " " + unit
}

func thousands(s string) string {
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func writeTable(w io.Writer, figures []Figure) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "\nKEY\tWHAT\tMEASURED\tTARGET\t\tLIMIT\tSHARE\tTHE LIMIT IS")
	for _, f := range figures {
		limit, share := "", ""
		if f.Limit != 0 {
			limit = amount(f.Limit, f.Unit)
		}
		if r := f.ratio(); r != 0 {
			share = strconv.FormatFloat(r, 'f', 2, 64)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", f.Key, f.What, amount(f.Value, f.Unit), f.target(), f.verdict(), limit, share, f.LimitWhat)
	}
	_ = t.Flush()
	fmt.Fprintln(w)
}

// Results is all of a run, as the file has it.
type Results struct {
	Date    time.Time `json:"date"`
	Machine Machine   `json:"machine"`
	Scale   float64   `json:"scale"`
	Figures []Figure  `json:"figures"`
	// Promises are the figures that have a key, by it.
	Promises map[string]Promise `json:"promises"`
}

// Promise is a figure with a target, in short.
type Promise struct {
	Value  float64 `json:"value"`
	Unit   string  `json:"unit"`
	Target float64 `json:"target"`
	Limit  float64 `json:"limit,omitempty"` // of the parts below, or of what it is compared with; 0 for none
	Ratio  float64 `json:"ratio,omitempty"` // to the limit: more is better
	Met    bool    `json:"met"`
}

// promises are the figures that have a key. Where several have the same, each must be met: the first
// that is not counts.
func promises(figures []Figure) map[string]Promise {
	m := map[string]Promise{}
	for _, f := range figures {
		if before, ok := m[f.Key]; f.Key == "" || ok && !before.Met {
			continue
		}
		m[f.Key] = Promise{Value: f.Value, Unit: f.Unit, Target: f.Target, Limit: f.Limit, Ratio: f.ratio(), Met: f.Met()}
	}
	return m
}

// write writes the figures to a file, beside those that it has of other parts, which are r's then too: `make bench` and
// `make bench-scale` of a day share one.
func (r *Results) write(path string) error {
	before := Results{}
	if b, err := os.ReadFile(path); err == nil && json.Unmarshal(b, &before) == nil && before.Scale == r.Scale {
		r.Figures = append(slices.DeleteFunc(before.Figures, func(old Figure) bool {
			return slices.ContainsFunc(r.Figures, func(f Figure) bool { return f.What == old.What })
		}), r.Figures...)
		r.Promises = promises(r.Figures)
	}
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the figures: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("write the figures: %w", err)
	}
	if err := os.WriteFile(path, append(b, '\n'), 0o644); err != nil {
		return fmt.Errorf("write the figures: %w", err)
	}
	return nil
}
