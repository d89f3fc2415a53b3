package shard

import (
	"strings"

	"github.com/bmatcuk/doublestar/v4"
)

// segment matches one name of a path, or with deep any number of them.
type segment struct {
	deep     bool
	literals map[string]struct{}
	others   []wildcard
}

// wildcard is a pattern of one name. Where it has a single * and nothing else
// that is special, prefix and suffix say it all; else glob does.
type wildcard struct {
	prefix, suffix string
	glob           string
}

func parseSegment(text, part string) (segment, error) {
	if part == "**" {
		return segment{deep: true}, nil
	}
	if doubleStar(part) >= 0 {
		return segment{}, globError(text, "has a ** that shares its segment", "write ** alone between slashes, as in /**/*.jpg")
	}
	flat, err := expand(text, part)
	if err != nil {
		return segment{}, err
	}
	seg := segment{literals: map[string]struct{}{}}
	for _, f := range flat {
		for i := doubleStar(f); i >= 0; i = doubleStar(f) {
			f = f[:i] + f[i+1:] // two stars that only met: {a*,b}*
		}
		switch name, star, kind := simple(f); {
		case kind == literal && name == "..":
			return segment{}, globError(text, `has a ".."`, "set base_path to where the files are, and write the glob from there")
		case kind == literal:
			seg.literals[name] = struct{}{}
		case kind == oneStar:
			seg.others = append(seg.others, wildcard{prefix: name[:star], suffix: name[star:]})
		default:
			seg.others = append(seg.others, wildcard{glob: f})
		}
	}
	return seg, nil
}

// doubleStar is where a part has two stars in a row, or -1.
func doubleStar(part string) int {
	for i := 0; i < len(part); i++ {
		switch part[i] {
		case '\\':
			i++
		case '[':
			i, _ = classEnd(part, i)
		case '*':
			if i+1 < len(part) && part[i+1] == '*' {
				return i
			}
		}
	}
	return -1
}

const (
	literal = iota + 1
	oneStar
	complex
)

// simple says whether a pattern without braces is a plain name or one with a
// single star, which stood at star of the name.
func simple(part string) (name string, star, kind int) {
	b, kind := make([]byte, 0, len(part)), literal
	for i := 0; i < len(part); i++ {
		switch part[i] {
		case '\\':
			i++
			b = append(b, part[i])
		case '[', '?':
			return "", 0, complex
		case '*':
			if kind == oneStar {
				return "", 0, complex
			}
			star, kind = len(b), oneStar
		default:
			b = append(b, part[i])
		}
	}
	return string(b), star, kind
}

// match reports whether the segment, which is not deep, matches a name.
func (s *segment) match(name string) bool {
	if _, ok := s.literals[name]; ok {
		return true
	}
	for i := range s.others {
		w := &s.others[i]
		if w.glob != "" {
			if doublestar.MatchUnvalidated(w.glob, name) {
				return true
			}
		} else if len(name) >= len(w.prefix)+len(w.suffix) && strings.HasPrefix(name, w.prefix) && strings.HasSuffix(name, w.suffix) {
			return true
		}
	}
	return false
}
