package shard

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/sheaf-run/agent/sheaf"
)

// expandAcross replaces segments whose braces hold slashes by what they expand to.
func expandAcross(text string, parts []string) ([][]string, error) {
	flat := [][]string{nil}
	for _, part := range parts {
		choices := []string{part}
		if strings.Contains(part, "/") {
			var err error
			if choices, err = expand(text, part); err != nil {
				return nil, err
			}
		}
		if len(flat)*len(choices) > maxAlternatives {
			return nil, tooMany(text)
		}
		var next [][]string
		for _, head := range flat {
			for _, c := range choices {
				pieces := []string{c}
				if len(choices) > 1 || strings.Contains(part, "/") {
					pieces, _ = cutSegments(c) // its parts were checked with the whole
				}
				next = append(next, append(slices.Clone(head), pieces...))
			}
		}
		flat = next
	}
	return flat, nil
}

func tooMany(text string) error {
	return &sheaf.Error{Class: sheaf.Invalid, Field: "split.glob", Msg: fmt.Sprintf("the braces of glob %q expand to too many patterns", text), Limit: strconv.Itoa(maxAlternatives), Hint: "use * or a class instead"}
}

// expand writes out the braces of a well-formed piece of a glob.
func expand(text, piece string) ([]string, error) {
	open := -1
	for i := 0; i < len(piece) && open < 0; i++ {
		switch piece[i] {
		case '\\':
			i++
		case '[':
			i, _ = classEnd(piece, i)
		case '{':
			open = i
		}
	}
	if open < 0 {
		return []string{piece}, nil
	}
	var inner []string
	depth, from, end := 1, open+1, 0
	for i := open + 1; depth > 0; i++ {
		switch piece[i] {
		case '\\':
			i++
		case '[':
			i, _ = classEnd(piece, i)
		case '{':
			depth++
		case '}':
			if depth--; depth == 0 {
				inner, end = append(inner, piece[from:i]), i
			}
		case ',':
			if depth == 1 {
				inner, from = append(inner, piece[from:i]), i+1
			}
		}
	}
	tails, err := expand(text, piece[end+1:])
	if err != nil {
		return nil, err
	}
	var out []string
	for _, in := range inner {
		heads, err := expand(text, in)
		if err != nil {
			return nil, err
		}
		if len(out)+len(heads)*len(tails) > maxAlternatives {
			return nil, tooMany(text)
		}
		for _, h := range heads {
			for _, t := range tails {
				out = append(out, piece[:open]+h+t)
			}
		}
	}
	return out, nil
}
