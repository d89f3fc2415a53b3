package command

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"text/template"
	"unicode"

	"charm.land/lipgloss/v2"
)

var (
	red    = lipgloss.NewStyle().Foreground(lipgloss.Red)
	green  = lipgloss.NewStyle().Foreground(lipgloss.Green)
	yellow = lipgloss.NewStyle().Foreground(lipgloss.Yellow)
	dim    = lipgloss.NewStyle().Faint(true)
	plain  = lipgloss.NewStyle()
)

// colour styles the first line of s if w is a terminal.
func (e *env) colour(w io.Writer, s string, style lipgloss.Style) string {
	if e.noColor || !terminal(w) {
		return s
	}
	first, rest, more := strings.Cut(s, "\n")
	if s = style.Render(first); more {
		s += "\n" + rest
	}
	return s
}

// hint tells what to do next; it is no result.
func (e *env) hint(format string, args ...any) {
	if !e.quiet {
		fmt.Fprintln(e.err, e.colour(e.err, fmt.Sprintf(format, args...), dim))
	}
}

// shaped prints v as -json, -t or -q ask for it, and reports whether one of them did.
func (e *env) shaped(v any, ids ...string) (bool, error) {
	switch {
	case e.json:
		enc := json.NewEncoder(e.out)
		enc.SetIndent("", "  ")
		return true, enc.Encode(v)
	case e.template != "":
		t, err := template.New("t").Option("missingkey=error").Parse(e.template)
		if err != nil {
			return true, usage("-t: %v", err)
		}
		b, err := json.Marshal(v)
		if err != nil {
			return true, err
		}
		var plain any
		if err := json.Unmarshal(b, &plain); err != nil {
			return true, err
		}
		if err := t.Execute(e.out, plain); err != nil {
			return true, usage("-t: %v", err)
		}
		_, err = fmt.Fprintln(e.out)
		return true, err
	case e.quiet:
		for _, id := range ids {
			fmt.Fprintln(e.out, id)
		}
		return true, nil
	}
	return false, nil
}

// table prints rows in columns, the first of them as the heading.
func (e *env) table(rows [][]string) error {
	w := tabwriter.NewWriter(e.out, 0, 4, 2, ' ', 0)
	for _, r := range rows {
		for i := range r {
			r[i] = printable(r[i])
		}
		fmt.Fprintln(w, strings.Join(r, "\t"))
	}
	return w.Flush()
}

// printable escapes what would steer a terminal: text of tasks, names of files.
func printable(s string) string {
	clean := func(r rune) bool { return r == unicode.ReplacementChar || unicode.IsControl(r) }
	if strings.IndexFunc(s, clean) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if r == '\t' || !clean(r) {
			b.WriteRune(r)
		} else {
			fmt.Fprintf(&b, "\\x%02x", r)
		}
	}
	return b.String()
}

// block is text of several lines, each printable and indented.
func block(s, indent string) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	for i := range lines {
		lines[i] = indent + printable(lines[i])
	}
	return strings.Join(lines, "\n")
}

// grouped3 writes a number with its digits in threes.
func grouped3(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// counted is a number with its noun, which takes an s.
func counted(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return grouped3(n) + " " + noun + "s"
}
