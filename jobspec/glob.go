package jobspec

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/bmatcuk/doublestar/v4"
)

// maxGlob bounds a pattern in bytes.
const maxGlob = 4096

// glob checks a split's pattern. What a pattern matches is for the splitter to
// say; that it is one is said here, at the place where it is written.
func (c *checker) glob(path, glob string) {
	switch {
	case glob == "":
		c.bad(path, "glob is missing", "", `write glob = "/*" for each file and directory at the top, or "/" for everything as one atom`)
		return
	case len(glob) > maxGlob:
		c.bad(path, fmt.Sprintf("glob is %d bytes long", len(glob)), fmt.Sprintf("%d bytes", maxGlob), "shorten it")
		return
	case strings.IndexByte(glob, 0) >= 0:
		c.bad(path, "glob holds a NUL character", "", "leave it out: no file name has one")
		return
	}
	if msg, hint := globMistake(glob); msg != "" {
		c.bad(path, fmt.Sprintf("glob %s %s", quoted(glob), msg), "", hint)
	}
}

// globScan is what the checks of a pattern need to know of what was read.
type globScan struct {
	braces int    // open
	piece  []byte // of the segment, or of an alternative in braces
	stars  bool   // the segment has a **
	other  bool   // the segment has something else

	climbs  bool // some piece is ".."
	shared  bool // some segment has ** and something else
	inBrace bool // some ** is in braces
}

func (g *globScan) endPiece() {
	g.climbs = g.climbs || string(g.piece) == ".."
	g.piece = g.piece[:0]
}

func (g *globScan) endSegment() {
	g.endPiece()
	g.shared = g.shared || g.stars && g.other
	g.stars, g.other = false, false
}

// globMistake is what is wrong with the form of a pattern, and the way out.
func globMistake(glob string) (msg, hint string) {
	var g globScan
	for i := 0; i < len(glob); i++ {
		switch ch := glob[i]; {
		case ch == '\\':
			if i++; i == len(glob) {
				return `ends with a \`, `write \\ for a backslash`
			}
			g.other, g.piece = true, append(g.piece, glob[i])
		case ch == '[':
			class := classLen(glob[i:])
			if class == 0 {
				return "opens a [ and does not close it", `close it with ], or write \[ for a plain one`
			}
			if bad := backwardRange(glob[i+1 : i+class-1]); bad != "" {
				return "has the range " + bad + ", which is backward and matches nothing", "turn it around"
			}
			g.other, g.piece = true, append(g.piece, '[')
			i += class - 1
		case ch == '{':
			g.braces++
			g.other = true
			g.endPiece()
		case ch == '}':
			if g.braces == 0 {
				return "closes a } that is not open", `write \} for a plain one`
			}
			g.braces--
			g.endPiece()
		case ch == ',' && g.braces > 0:
			g.endPiece()
		case ch == '/' && g.braces == 0:
			g.endSegment()
		case ch == '/':
			g.endPiece()
		case strings.HasPrefix(glob[i:], "**"):
			i++
			g.inBrace = g.inBrace || g.braces > 0
			g.other = g.other || g.stars // three stars and more
			g.stars = true
			g.piece = append(g.piece, '*')
		default:
			g.other, g.piece = true, append(g.piece, ch)
		}
	}
	g.endSegment()
	switch {
	case g.braces > 0:
		return "opens a { and does not close it", `close it with }, or write \{ for a plain one`
	case g.climbs:
		return "climbs with ..", "name the folder in base_path instead; nothing outside the inputs can be reached"
	case g.inBrace:
		return "has ** inside braces", "write ** as a segment of its own, outside { }"
	case g.shared:
		return "has ** in one segment with something else", `write ** as a segment of its own, as in "/**/*.jpg"`
	case !doublestar.ValidatePattern(glob):
		return "is malformed", "look at [ ] classes, which need at least one character"
	}
	return "", ""
}

// classLen is the length of the class [...] that s begins with, 0 where it is
// not closed.
func classLen(s string) int {
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case ']':
			return i + 1
		}
	}
	return 0
}

// backwardRange is the first range of a class whose end lies before its
// beginning, such as z-a. The matcher would let it match nothing.
func backwardRange(class string) string {
	var last rune
	inRange := false
	for i := 0; i < len(class); {
		r, n := utf8.DecodeRuneInString(class[i:])
		if r == '-' && last != 0 && !inRange && i+1 < len(class) {
			inRange = true
			i += n
			continue
		}
		if r == '\\' && i+n < len(class) {
			i += n
			r, n = utf8.DecodeRuneInString(class[i:])
		}
		if inRange && r < last {
			return string(last) + "-" + string(r)
		}
		i += n
		last, inRange = r, false
	}
	return ""
}
