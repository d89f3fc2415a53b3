package jobspec

import (
	"strings"
	"testing"

	"github.com/bmatcuk/doublestar/v4"
)

// TestGlobs holds the examples of the language, and what is next to them.
func TestGlobs(t *testing.T) {
	for _, glob := range []string{
		"/", "/*", "/*/*", "/**", "**", "/**/*.jpg", "/volume*/image*.jpg", "*.jpg", "/a?c", "/[a-z]*", "/[^a-z]", "/[!a]",
		"/{a,b}/c", "/{a/b,c}/*", "/{,a}", `/\*`, `/\[x`, `/\{x\}`, "/a//b", "/./a", "/*/", "/.hidden", "/...", "/a..b", "/..a",
		"/{a,{b,c}}", "/a,b", "/**/x/**", `/\*\*a`, "/ä*", "/[a-]", "/[-a]", "/[a-b-c]", `/[\]]`, "/[a/b]", "/[]]a", "/a]",
	} {
		msg, hint := globMistake(glob)
		if !doublestar.ValidatePattern(glob) {
			if msg == "" {
				t.Errorf("%q is accepted, and the matcher refuses it", glob)
			}
			continue
		}
		if msg != "" {
			t.Errorf("%q %s (%s)", glob, msg, hint)
		}
	}
	for glob, want := range map[string]string{
		"/[a":         "opens a [",
		"/[":          "opens a [",
		"/[^":         "opens a [",
		"/{a":         "opens a {",
		"/{a,{b}":     "opens a {",
		"/a}":         "closes a }",
		"../*":        "..",
		"/..":         "..",
		"/a/../b":     "..",
		"/{..,a}":     "..",
		"/{a/..,b}/c": "..",
		"/{a,..}/b":   "..",
		"/**a":        "one segment",
		"/a**":        "one segment",
		"/a**/b":      "one segment",
		"/***":        "one segment",
		"/****":       "one segment",
		"/**.jpg":     "one segment",
		"/**?":        "one segment",
		"/**{a,b}":    "one segment",
		"/{**,a}":     "braces",
		"/{a/**/b,c}": "braces",
		`/a\`:         `ends with a \`,
		"/[z-a]":      "range z-a",
		"/[a-c9-0]":   "range 9-0",
		`/[b-\a]`:     "range b-a",
		"/[]":         "malformed",
	} {
		msg, hint := globMistake(glob)
		if !strings.Contains(msg, want) || hint == "" {
			t.Errorf("%q gives %q (%s), want %q", glob, msg, hint, want)
		}
	}
}

// FuzzGlob checks that what is accepted is accepted by the matcher too.
func FuzzGlob(f *testing.F) {
	for _, s := range []string{"/", "/**/*.jpg", "/{a,b}/[c-d]?", `/\[`, "../*", "/[]a]", "/{..,a}"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, glob string) {
		msg, hint := globMistake(glob)
		if (msg == "") != (hint == "") {
			t.Fatalf("%q: message %q, hint %q", glob, msg, hint)
		}
		if msg == "" && !doublestar.ValidatePattern(glob) {
			t.Fatalf("%q is accepted, and the matcher refuses it", glob)
		}
	})
}
