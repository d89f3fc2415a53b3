package shard

import (
	"errors"
	"strings"
	"testing"

	"github.com/sheaf-run/agent/sheaf"
)

func TestCompileRefuses(t *testing.T) {
	one := []sheaf.Input{{Name: "in", Mount: "/in"}}
	two := []sheaf.Input{{Name: "a", Mount: "/in/a"}, {Name: "b", Mount: "/in/b"}}
	for _, c := range []struct {
		inputs []sheaf.Input
		split  *sheaf.Split
		class  sheaf.Class
		field  string
		says   string
	}{
		{one, nil, sheaf.Invalid, "split", "no split"},
		{nil, &sheaf.Split{Glob: "/*"}, sheaf.Invalid, "split", "no input"},
		{one, &sheaf.Split{Combine: &sheaf.Combine{Kind: "cross"}}, sheaf.Invalid, "split.combine.of", "cross combines 0"},
		{one, &sheaf.Split{Combine: &sheaf.Combine{Kind: "zip"}}, sheaf.Invalid, "split.combine.kind", "zip"},
		{one, &sheaf.Split{Combine: &sheaf.Combine{Kind: "over", Over: &sheaf.Over{Input: "in", Glob: "/*"}}}, sheaf.Invalid, "split.combine.kind", "combines nothing"},
		{one, &sheaf.Split{Glob: "/*", Stable: true}, sheaf.Invalid, "split.stable", "average"},
		{one, &sheaf.Split{Glob: "/*", Stable: true, Partitions: 3}, sheaf.Invalid, "split.stable", "partitions"},
		{one, &sheaf.Split{Glob: "/*", BasePath: "in"}, sheaf.Invalid, "split.base_path", "not absolute"},
		{one, &sheaf.Split{Glob: "/*", BasePath: "/in/../x"}, sheaf.Invalid, "split.base_path", `".."`},
		{one, &sheaf.Split{Glob: "/*", BasePath: "/other"}, sheaf.Invalid, "split.base_path", "no input is mounted"},
		{two, &sheaf.Split{Glob: "/*", BasePath: "/i"}, sheaf.Invalid, "split.base_path", "no input is mounted"},
		{one, &sheaf.Split{Glob: "/*", Match: "file"}, sheaf.Invalid, "split.match", `"file"`},
		{one, &sheaf.Split{Glob: "/", Match: "files"}, sheaf.Invalid, "split.match", "whole tree"},
		{one, &sheaf.Split{Glob: "/*/", Match: "files"}, sheaf.Invalid, "split.match", "ends in a slash"},
		{one, &sheaf.Split{Glob: "/*", BatchSize: -1}, sheaf.Invalid, "split.batch_size", "-1"},
		{one, &sheaf.Split{Glob: "/*", MaxBytes: -5}, sheaf.Invalid, "split.max_bytes", "-5"},
		{one, &sheaf.Split{Glob: "/*", Partitions: -1}, sheaf.Invalid, "split.partitions", "-1"},
		{one, &sheaf.Split{Glob: "/*", Partitions: sheaf.MaxPartitions + 1}, sheaf.Invalid, "split.partitions", "10000001"},
		{one, &sheaf.Split{Glob: "/*", Partitions: 3, BatchSize: 1}, sheaf.Invalid, "split.partitions", "beside"},
		{one, &sheaf.Split{Glob: "/*", Partitions: 3, MaxBytes: 1}, sheaf.Invalid, "split.partitions", "beside"},
		{one, &sheaf.Split{Glob: "/*", GroupBy: "("}, sheaf.Invalid, "split.group_by", "no regular expression"},
		{one, &sheaf.Split{Glob: "/*", GroupBy: "^/x"}, sheaf.Invalid, "split.group_by", "no capture"},
		{one, &sheaf.Split{Glob: "/*", GroupBy: "(x)", GroupRest: "some"}, sheaf.Invalid, "split.group_rest", `"some"`},
		{one, &sheaf.Split{Glob: "/*", GroupRest: "keep"}, sheaf.Invalid, "split.group_rest", "without group_by"},
		{one, &sheaf.Split{Glob: "/a**"}, sheaf.Invalid, "split.glob", "shares"},
	} {
		_, err := Compile(&sheaf.Job{Inputs: c.inputs, Split: c.split})
		var e *sheaf.Error
		if !errors.As(err, &e) {
			t.Errorf("%+v: %v", c.split, err)
			continue
		}
		if e.Class != c.class || e.Field != c.field || e.Hint == "" || !strings.Contains(e.Error(), c.says) {
			t.Errorf("%+v: %s error %q at %q, hint %q; want %s at %q saying %q", c.split, e.Class, e, e.Field, e.Hint, c.class, c.field, c.says)
		}
	}
}

// TestDescend guards the pruning of the walk: what is not needed is not listed.
func TestDescend(t *testing.T) {
	for _, c := range []struct {
		split sheaf.Split
		mount string
		yes   []string
		no    []string
	}{
		{sheaf.Split{Glob: "/*"}, "/in", []string{"/", "/in", "/in/a", "/in/a/b/c"}, []string{"/out", "/inn"}},
		{sheaf.Split{Glob: "/*", Match: "files"}, "/in", []string{"/in"}, []string{"/in/a"}},
		{sheaf.Split{Glob: "/*.txt"}, "/in", []string{"/in", "/in/a.txt", "/in/a.txt/b"}, []string{"/in/a", "/in/b.jpg"}},
		{sheaf.Split{Glob: "/a/**/*.txt"}, "/in", []string{"/in", "/in/a", "/in/a/b/c"}, []string{"/in/b"}},
		{sheaf.Split{Glob: "/a/b", BasePath: "/in/x"}, "/in", []string{"/in/x", "/in/x/a", "/in/x/a/b"}, []string{"/in/y", "/in/x/b"}},
		{sheaf.Split{Glob: "/"}, "/in", []string{"/", "/in", "/in/a"}, []string{"/out"}},
		{sheaf.Split{Glob: "/", BasePath: "/"}, "/in", []string{"/", "/in", "/in/a"}, nil},
		{sheaf.Split{Glob: "/{a/b,c}/*", Match: "files"}, "/in", []string{"/in/a", "/in/a/b", "/in/c"}, []string{"/in/b", "/in/a/c", "/in/c/d"}},
	} {
		r, err := Compile(&sheaf.Job{Inputs: []sheaf.Input{{Name: "in", Mount: c.mount}}, Split: &c.split})
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range c.yes {
			if !r.Descend(d) {
				t.Errorf("%+v: %s is not descended", c.split, d)
			}
		}
		for _, d := range c.no {
			if r.Descend(d) {
				t.Errorf("%+v: %s is descended", c.split, d)
			}
		}
	}
}

func TestPlaces(t *testing.T) {
	inputs := []sheaf.Input{{Name: "a", Mount: "/in/a"}, {Name: "ab", Mount: "/in/ab"}}
	for _, c := range []struct {
		inputs []sheaf.Input
		path   string
		want   []Place
	}{
		{inputs, "/in/a/x/y", []Place{{0, "x/y", "/in/a/x/y"}}},
		{inputs, "/in/ab", []Place{{1, "", "/in/ab"}}},
		{inputs, "/in", []Place{{0, "", "/in/a"}, {1, "", "/in/ab"}}},
		{inputs, "/", []Place{{0, "", "/in/a"}, {1, "", "/in/ab"}}},
		{inputs, "/in/abc", nil},
		{[]sheaf.Input{{Mount: "/"}}, "/x", []Place{{0, "x", "/x"}}},
		{[]sheaf.Input{{Mount: "/"}}, "/", []Place{{0, "", "/"}}},
	} {
		got := Places(c.inputs, &sheaf.Atom{Path: c.path})
		if len(got) != len(c.want) {
			t.Errorf("%s: %v, want %v", c.path, got, c.want)
			continue
		}
		for i := range got {
			if got[i] != c.want[i] {
				t.Errorf("%s: %v, want %v", c.path, got, c.want)
			}
		}
	}
}
