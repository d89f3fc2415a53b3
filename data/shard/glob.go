package shard

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/sheaf-run/agent/sheaf"
)

const (
	// maxGlob bounds a glob in bytes: the longest path of most systems.
	maxGlob = 4096

	// maxSegments bounds base path and glob together, so that the places a
	// path may stand at in a pattern fit in one word.
	maxSegments = 63

	// maxAlternatives bounds what the braces of a glob expand to: each costs
	// time for every name. Nested braces make it 2^n fast.
	maxAlternatives = 1024
)

// glob is a cleaned glob.
type glob struct {
	patterns [][]segment // alternatives that differ in more than one segment
	deep     bool        // ** is in it
	dirsOnly bool        // it ended in a slash
}

// whole reports whether the glob is "/": the base itself.
func (g *glob) whole() bool { return len(g.patterns) == 1 && len(g.patterns[0]) == 0 }

func globError(text, msg, hint string) error {
	return &sheaf.Error{Class: sheaf.Invalid, Field: "split.glob", Msg: fmt.Sprintf("glob %q %s", text, msg), Hint: hint}
}

// parseGlob checks and cleans a glob.
func parseGlob(text string) (*glob, error) {
	switch {
	case text == "":
		return nil, globError(text, "is empty", `write "/*" for each top-level file and directory, "/**" for every file, or "/" for the whole tree as one`)
	case len(text) > maxGlob:
		return nil, &sheaf.Error{Class: sheaf.Invalid, Field: "split.glob", Msg: fmt.Sprintf("the glob is %d bytes long", len(text)), Limit: strconv.Itoa(maxGlob) + " bytes", Hint: "shorten it"}
	case !utf8.ValidString(text), strings.IndexByte(text, 0) >= 0:
		return nil, globError(text, "is no text", "leave out NUL and bytes that are not UTF-8; match them with ?")
	}
	parts, err := cutSegments(text)
	if err != nil {
		return nil, err
	}
	g := &glob{dirsOnly: strings.HasSuffix(text, "/") && !isEscaped(text, len(text)-1)}
	flat, err := expandAcross(text, parts)
	if err != nil {
		return nil, err
	}
	for _, parts := range flat {
		var p []segment
		for _, part := range parts {
			if part == "" || part == "." {
				continue
			}
			seg, err := parseSegment(text, part)
			if err != nil {
				return nil, err
			}
			g.deep = g.deep || seg.deep
			p = append(p, seg)
		}
		if len(p) > maxSegments {
			return nil, &sheaf.Error{Class: sheaf.Invalid, Field: "split.glob", Msg: fmt.Sprintf("the glob has %d segments", len(p)), Limit: strconv.Itoa(maxSegments), Hint: "use ** for many levels"}
		}
		g.patterns = append(g.patterns, p)
	}
	return g, nil
}

// isEscaped reports whether the byte at i has a backslash before it that
// counts.
func isEscaped(text string, i int) bool {
	n := 0
	for i--; i >= 0 && text[i] == '\\'; i-- {
		n++
	}
	return n%2 == 1
}

// cutSegments cuts a glob at the slashes outside braces, and refuses what is malformed.
func cutSegments(text string) (parts []string, err error) {
	depth, from := 0, 0
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '\\':
			if i++; i == len(text) {
				return nil, globError(text, "ends in a backslash", `write "\\\\" for a backslash itself`)
			}
			if text[i] == '/' {
				return nil, globError(text, "escapes a slash", "no name holds a slash: leave the backslash out")
			}
		case '[':
			end, err := classEnd(text, i)
			if err != nil {
				return nil, err
			}
			i = end
		case '{':
			depth++
		case '}':
			if depth--; depth < 0 {
				return nil, globError(text, "closes a } that no { opened", `write "\\}" for the character itself`)
			}
		case '*':
			if i+1 < len(text) && text[i+1] == '*' && depth > 0 {
				return nil, globError(text, "has a ** inside braces", "write the alternatives as globs of their own, or move ** out")
			}
		case '/':
			if depth == 0 {
				parts = append(parts, text[from:i])
				from = i + 1
			}
		}
	}
	if depth > 0 {
		return nil, globError(text, "has a { that is not closed", `close it, or write "\\{" for the character itself`)
	}
	return append(parts, text[from:]), nil
}

// classEnd is where the class that begins at i ends.
func classEnd(text string, i int) (int, error) {
	unclosed := func() error {
		return globError(text, "has a [ that is not closed", `close it, or write "\\[" for the character itself`)
	}
	j := i + 1
	if j < len(text) && (text[j] == '^' || text[j] == '!') {
		j++
	}
	if j < len(text) && text[j] == ']' {
		return 0, globError(text, "has an empty class []", "put characters into it")
	}
	low := rune(-1) // what a range could begin with
	for j < len(text) && text[j] != ']' {
		if low >= 0 && text[j] == '-' && j+1 < len(text) && text[j+1] != ']' {
			high, next, ok := classRune(text, j+1)
			if !ok {
				return 0, unclosed()
			}
			if high < low {
				return 0, globError(text, fmt.Sprintf("has the range %c-%c, which is empty", low, high), "write the lower end first")
			}
			low, j = -1, next
			continue
		}
		r, next, ok := classRune(text, j)
		if !ok {
			return 0, unclosed()
		}
		low, j = r, next
	}
	if j >= len(text) {
		return 0, unclosed()
	}
	return j, nil
}

// classRune reads one character of a class, escaped or not.
func classRune(text string, i int) (r rune, next int, ok bool) {
	if text[i] == '\\' {
		i++
	}
	if i >= len(text) {
		return 0, 0, false
	}
	r, n := utf8.DecodeRuneInString(text[i:])
	return r, i + n, true
}
