package jobspec

import (
	"bytes"
	"cmp"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/sheaf-run/agent/sheaf"
)

// Diagnostic is one mistake, or one warning, and its place. Line and Column
// count from 1; they are 0 where there is no text to point at, as for a flag.
type Diagnostic struct {
	Problem *sheaf.Error `json:"problem"`
	File    string       `json:"file,omitempty"`
	Line    int          `json:"line,omitempty"`
	Column  int          `json:"column,omitempty"`
	Width   int          `json:"width,omitempty"`  // how many columns of the line are meant
	Source  string       `json:"source,omitempty"` // the line as it stands in the file
}

// Error is the place, the message and the limit, on one line.
func (d Diagnostic) Error() string {
	place := printable(d.File)
	if d.Line > 0 {
		place += fmt.Sprintf(":%d:%d", d.Line, d.Column)
	}
	if place != "" {
		place += ": "
	}
	return place + printable(d.Problem.Error())
}

// Unwrap gives the mistake without its place.
func (d Diagnostic) Unwrap() error { return d.Problem }

// sourceColumns is how much of a source line is shown. Longer lines are cut
// around the place, so that a megabyte on one line stays readable.
const sourceColumns = 120

// Text is the message with the source line, a mark below the place, and what to write
// instead, each on lines of its own. Control characters are escaped.
func (d Diagnostic) Text() string {
	var b strings.Builder
	b.WriteString(d.Error())
	b.WriteByte('\n')
	if d.Line > 0 {
		runes, at := []rune(d.Source), max(0, min(d.Column-1, utf8.RuneCountInString(d.Source)))
		width := max(1, min(d.Width, len(runes)-at))
		from := max(0, min(at-sourceColumns/2, len(runes)-sourceColumns))
		to := min(len(runes), from+sourceColumns)
		before, marked, after := printable(string(runes[from:at])), printable(string(runes[at:min(at+width, to)])), ""
		if at+width < to {
			after = printable(string(runes[at+width : to]))
		}
		fmt.Fprintf(&b, "%5d | %s%s%s\n", d.Line, before, marked, after)
		fmt.Fprintf(&b, "      | %s%s\n", strings.Repeat(" ", utf8.RuneCountInString(before)), strings.Repeat("^", max(1, utf8.RuneCountInString(marked))))
	}
	if d.Problem.Hint != "" {
		fmt.Fprintf(&b, "      = %s\n", printable(d.Problem.Hint))
	}
	return b.String()
}

// Diagnostics are mistakes in the order of their places. As an error it is of
// the class of the first: errors.As finds that one's *sheaf.Error.
type Diagnostics []Diagnostic

// Error is the text of all.
func (ds Diagnostics) Error() string {
	var b strings.Builder
	for i, d := range ds {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(d.Text())
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// Unwrap gives each.
func (ds Diagnostics) Unwrap() []error {
	errs := make([]error, len(ds))
	for i, d := range ds {
		errs[i] = d
	}
	return errs
}

// byPlace orders diagnostics as a reader meets them.
func byPlace(a, b Diagnostic) int {
	return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
}

// orNil is ds as an error, nil where there is none.
func (ds Diagnostics) orNil() error {
	if len(ds) == 0 {
		return nil
	}
	return ds
}

// Warnings are not mistakes, but worth a look.
type Warnings []Diagnostic

// maxDiagnostics is how many mistakes are reported; a file with more has
// usually one cause, and a hostile one shall not make megabytes of text.
const maxDiagnostics = 50

// cut drops what is beyond maxDiagnostics and says how many that were.
func (ds Diagnostics) cut() Diagnostics {
	if len(ds) <= maxDiagnostics {
		return ds
	}
	rest := len(ds) - maxDiagnostics
	return append(ds[:maxDiagnostics:maxDiagnostics], Diagnostic{File: ds[0].File, Problem: &sheaf.Error{
		Class: sheaf.Invalid, Msg: fmt.Sprintf("and %d more mistakes", rest), Limit: fmt.Sprint(maxDiagnostics)}})
}

// lineAt is the 1-based line and column of a byte offset, and the line's text.
func lineAt(src []byte, offset int) (line, column int, text string) {
	offset = max(0, min(offset, len(src)))
	start := bytes.LastIndexByte(src[:offset], '\n') + 1
	end := len(src)
	if i := bytes.IndexByte(src[start:], '\n'); i >= 0 {
		end = start + i
	}
	return bytes.Count(src[:start], []byte{'\n'}) + 1, utf8.RuneCount(src[start:offset]) + 1, strings.TrimSuffix(string(src[start:end]), "\r")
}

// pointAt is a diagnostic at a range of bytes of src.
func pointAt(file string, src []byte, from, to int, p *sheaf.Error) Diagnostic {
	line, column, text := lineAt(src, from)
	from, to = max(0, min(from, len(src))), max(0, min(to, len(src)))
	width := 1
	if to > from {
		shown, _, _ := strings.Cut(string(src[from:to]), "\n")
		width = max(1, utf8.RuneCountInString(shown))
	}
	return Diagnostic{Problem: p, File: file, Line: line, Column: column, Width: width, Source: text}
}

// printable escapes what would act on a terminal. A tab becomes a space, so that marks stay in place.
func printable(s string) string {
	if utf8.ValidString(s) && strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) && r != utf8.RuneError }) < 0 {
		return s
	}
	var b strings.Builder
	for i, r := range s {
		switch {
		case r == '\t':
			b.WriteByte(' ')
		case r == utf8.RuneError && !strings.HasPrefix(s[i:], "\ufffd"):
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case unicode.IsPrint(r) || r == utf8.RuneError:
			b.WriteRune(r)
		case r < 0x100:
			fmt.Fprintf(&b, `\x%02x`, r)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}
