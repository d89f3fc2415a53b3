package shard

import (
	"errors"
	"strings"
	"testing"

	"github.com/bmatcuk/doublestar/v4"
	"pgregory.net/rapid"

	"github.com/sheaf-run/agent/sheaf"
)

// globMatches runs a parsed glob over a path below the base, as doublestar would.
func globMatches(t interface{ Fatal(...any) }, text, path string) bool {
	r, err := Compile(&sheaf.Job{Inputs: []sheaf.Input{{Name: "in", Mount: "/b"}}, Split: &sheaf.Split{Glob: text, Match: sheaf.MatchAny}})
	if err != nil {
		t.Fatal(err)
	}
	matched, _ := newMatcher(r).match("/b/" + path)
	return matched
}

func TestGlobLanguage(t *testing.T) {
	for _, c := range []struct {
		glob    string
		matches []string
		not     []string
	}{
		{"/*", []string{"a", ".hidden", "a b", "\xff"}, []string{"a/b"}},
		{"*", []string{"a", ".hidden"}, []string{"a/b"}},
		{"/*/*", []string{"a/b"}, []string{"a", "a/b/c"}},
		{"/a*z", []string{"az", "abz"}, []string{"a", "aza", "a/z"}},
		{"/?.txt", []string{"a.txt", "é.txt", "\xff.txt"}, []string{"ab.txt", ".txt", "\xff\xfe.txt"}},
		{"/**", []string{"a", "a/b", "a/b/c"}, nil},
		{"/**/*.jpg", []string{"x.jpg", "a/x.jpg", "a/b/x.jpg"}, []string{"x.png", "a/x.jpg/y"}},
		{"/a/**", []string{"a", "a/b", "a/b/c"}, []string{"ab", "b"}},
		{"/a/**/z", []string{"a/z", "a/b/z", "a/b/c/z"}, []string{"z", "a", "a/zz"}},
		{"/**/a/**/b", []string{"a/b", "x/a/y/b", "a/a/b/b"}, []string{"a", "b/a"}},
		{"/[a-c]x", []string{"ax", "cx"}, []string{"dx", "x"}},
		{"/[^a-c]x", []string{"dx"}, []string{"ax"}},
		{"/[!a]x", []string{"bx"}, []string{"ax"}},
		{"/{a,b*}/c", []string{"a/c", "b/c", "bb/c"}, []string{"c/c"}},
		{"/{a,b/c}.txt", []string{"a.txt", "b/c.txt"}, []string{"b.txt", "a/c.txt"}},
		{"/{a,{b,c}d}", []string{"a", "bd", "cd"}, []string{"b", "d"}},
		{"/{[,],x}", []string{",", "x"}, []string{"[", "]"}},
		{"/x{,y}", []string{"x", "xy"}, nil},
		{`/\*`, []string{"*"}, []string{"a", `\*`}},
		{`/\{a,b\}`, []string{"{a,b}"}, []string{"a"}},
		{`/a\?`, []string{"a?"}, []string{"ab"}},
		{`/[\]]`, []string{"]"}, []string{`\`}},
		{"/A", []string{"A"}, []string{"a"}},
		{"//a///b", []string{"a/b"}, nil},
		{"/./a/./b", []string{"a/b"}, nil},
		{"./a", []string{"a"}, nil},
		{"/a,b", []string{"a,b"}, nil},
		{"/a]", []string{"a]"}, nil},
		{"/...", []string{"..."}, []string{".."}},
	} {
		for _, p := range c.matches {
			if !globMatches(t, c.glob, p) {
				t.Errorf("glob %q does not match %q", c.glob, p)
			}
		}
		for _, p := range c.not {
			if globMatches(t, c.glob, p) {
				t.Errorf("glob %q matches %q", c.glob, p)
			}
		}
	}
}

func TestMalformedGlobs(t *testing.T) {
	for _, c := range []struct{ glob, says string }{
		{"", "is empty"},
		{"/[a", "[ that is not closed"},
		{"/[a-", "[ that is not closed"},
		{"/[", "[ that is not closed"},
		{`/[a\`, "[ that is not closed"},
		{"/[]", "empty class"},
		{"/[!]", "empty class"},
		{"/[z-a]", "range z-a"},
		{"/{a,b", "{ that is not closed"},
		{"/a}", "no { opened"},
		{`/a\`, "ends in a backslash"},
		{`/a\/b`, "escapes a slash"},
		{"/../a", `".."`},
		{"../*", `".."`},
		{"/a/..", `".."`},
		{"/{..,a}/b", `".."`},
		{"/{a/..,b}/c", `".."`},
		{`/.\./a`, `".."`},
		{"/{**,a}/b", "** inside braces"},
		{"/{a/**,b}", "** inside braces"},
		{"/a**", "shares its segment"},
		{"/**.jpg", "shares its segment"},
		{"/***", "shares its segment"},
		{"/a/**b/c", "shares its segment"},
		{"/a\x00", "is no text"},
		{"/\xff", "is no text"},
		{"/" + strings.Repeat("a", maxGlob), "4097 bytes"},
		{strings.Repeat("/a", 64), "segments"},
		{"/" + strings.Repeat("{a,b}", 11), "too many patterns"},
		{"/" + strings.Repeat("{", 2000) + strings.Repeat("}", 2000), ""},
		{strings.Repeat("/{a/b,c/d}", 11), "too many patterns"},
	} {
		_, err := parseGlob(c.glob)
		var e *sheaf.Error
		if c.says == "" {
			continue // only must not take long, nor break
		}
		if !errors.As(err, &e) {
			t.Errorf("glob %.40q: no error of ours: %v", c.glob, err)
			continue
		}
		if e.Class != sheaf.Invalid || e.Field != "split.glob" || e.Hint == "" || !strings.Contains(err.Error(), c.says) {
			t.Errorf("glob %.40q: %s error %q at %q, hint %q; want one that says %q", c.glob, e.Class, e, e.Field, e.Hint, c.says)
		}
	}
}

// drawGlob makes well-formed globs over a small alphabet.
func drawGlob(t *rapid.T) string {
	piece := rapid.SampledFrom([]string{"a", "b", "ab", "*", "?", "[ab]", "[^a]", "{a,b}", "{a*,b?}", "{ab,c}", ".a", `\*`, "é"})
	var segs []string
	for range rapid.IntRange(1, 4).Draw(t, "segments") {
		if rapid.IntRange(0, 4).Draw(t, "deep") == 0 {
			if len(segs) > 0 && segs[len(segs)-1] == "**" {
				continue // the library needs a name for one of two, which "zero or more" does not
			}
			segs = append(segs, "**")
			continue
		}
		text := ""
		for range rapid.IntRange(1, 3).Draw(t, "pieces") {
			p := piece.Draw(t, "piece")
			if strings.HasSuffix(text, "*") && !strings.HasSuffix(text, `\*`) && strings.HasPrefix(p, "*") {
				continue
			}
			text += p
		}
		segs = append(segs, text)
	}
	if len(segs) == 0 || segs[len(segs)-1] == "**" {
		segs = append(segs, "*") // behind a wildcard the library's last ** does not span nothing
	}
	return strings.Join(segs, "/")
}

func drawPath(t *rapid.T) string {
	name := rapid.SampledFrom([]string{"a", "b", "ab", "ba", "aab", ".a", "*", "é", "aé", "\xff", "c"})
	return strings.Join(rapid.SliceOfN(name, 1, 5).Draw(t, "path"), "/")
}

// TestGlobIsDoublestar compares the matcher with the library whose language it is.
func TestGlobIsDoublestar(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text, path := drawGlob(t), drawPath(t)
		// The library lets a negated class match a slash; ours stays in its segment.
		want, err := doublestar.Match(strings.ReplaceAll(text, "[^a]", "[^a/]"), path)
		if err != nil {
			t.Fatal(text, err)
		}
		if got := globMatches(t, text, path); got != want {
			t.Fatalf("glob %q and path %q: %v, doublestar says %v", text, path, got, want)
		}
	})
}

func FuzzGlob(f *testing.F) {
	for _, s := range []string{"/*", "/**/*.jpg", "{a,b/c}[x-z]", `\[`, "/{[,],{a,b}}", "//./a", "/[^", "/{{{{", "a**", strings.Repeat("{a,", 50)} {
		f.Add(s, "a/b.jpg")
	}
	f.Fuzz(func(t *testing.T, text, path string) {
		r, err := Compile(&sheaf.Job{Inputs: []sheaf.Input{{Name: "in", Mount: "/b"}}, Split: &sheaf.Split{Glob: text}})
		if err != nil {
			if sheaf.ClassOf(err) != sheaf.Invalid {
				t.Fatalf("glob %q: class %s: %v", text, sheaf.ClassOf(err), err)
			}
			return
		}
		if !doublestar.ValidatePattern(text) {
			t.Fatalf("glob %q is malformed and was taken", text)
		}
		p := "/b/" + strings.Trim(path, "/")
		matched, _ := newMatcher(r).match(p)
		if matched && p != "/b/" && !r.Descend(p[:strings.LastIndexByte(p, '/')]) {
			t.Fatalf("glob %q matches %q, whose directory is not descended", text, p)
		}
	})
}
