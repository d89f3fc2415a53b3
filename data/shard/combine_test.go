package shard

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/bmatcuk/doublestar/v4"
	"pgregory.net/rapid"

	"github.com/sheaf-run/agent/sheaf"
)

var twoInputs = []sheaf.Input{{Name: "a", Mount: "/a"}, {Name: "b", Mount: "/b"}}

func leaf(input, glob, key string) sheaf.Combine {
	return sheaf.Combine{Kind: "over", Over: &sheaf.Over{Input: input, Glob: glob, Key: key}}
}

func outer(c sheaf.Combine) sheaf.Combine {
	o := *c.Over
	o.Outer = true
	return sheaf.Combine{Kind: "over", Over: &o}
}

func of(kind string, parts ...sheaf.Combine) sheaf.Combine {
	return sheaf.Combine{Kind: kind, Of: parts}
}

// inTuples writes shards down as "key(path path) key(path) | …".
func inTuples(shards []sheaf.Shard) string {
	var all []string
	for _, s := range shards {
		var one []string
		for _, d := range s.Data {
			var paths []string
			for _, a := range d.Atoms {
				paths = append(paths, a.Path)
			}
			one = append(one, d.Key+"("+strings.Join(paths, " ")+")")
		}
		all = append(all, strings.Join(one, " "))
	}
	return strings.Join(all, " | ")
}

func TestCombinations(t *testing.T) {
	list := slices.Concat(tree(0, "/a/", "/a/1.x", "/a/2.x", "/a/2.y", "/a/d/e"), tree(1, "/b/", "/b/2", "/b/3"))
	byName := `^/([0-9])`
	a, b := leaf("a", "/[12].*", byName), leaf("b", "/*", byName)
	plainA, plainB := leaf("a", "/*.x", ""), leaf("b", "/*", "")
	for _, c := range []struct {
		name    string
		combine sheaf.Combine
		batch   int
		want    string
	}{
		{"cross, the first outermost", of("cross", plainA, plainB), 2, "(/a/1.x /b/2) (/a/1.x /b/3) | (/a/2.x /b/2) (/a/2.x /b/3)"},
		{"cross, the other way", of("cross", plainB, plainA), 3, "(/b/2 /a/1.x) (/b/2 /a/2.x) (/b/3 /a/1.x) | (/b/3 /a/2.x)"},
		{"cross with itself", of("cross", plainB, plainB), 4, "(/b/2 /b/2) (/b/2 /b/3) (/b/3 /b/2) (/b/3 /b/3)"},
		{"union in the order written", of("union", plainB, plainA), 3, "(/b/2) (/b/3) (/a/1.x) | (/a/2.x)"},
		{"join", of("join", a, b), 1, "2(/a/2.x /b/2) | 2(/a/2.y /b/2)"},
		{"left outer", of("join", outer(a), b), 9, "1(/a/1.x) 2(/a/2.x /b/2) 2(/a/2.y /b/2)"},
		{"full outer", of("join", outer(a), outer(b)), 9, "1(/a/1.x) 2(/a/2.x /b/2) 2(/a/2.y /b/2) 3(/b/3)"},
		{"group", of("group", a, b), 1, "1(/a/1.x) | 2(/a/2.x /a/2.y /b/2) | 3(/b/3)"},
		{"a directory", of("cross", leaf("a", "/d", ""), plainB), 2, "(/a/d /b/2) (/a/d /b/3)"},
		{"a whole input", of("cross", leaf("a", "/", ""), plainB), 2, "(/a /b/2) (/a /b/3)"},
		{"union of crosses", of("union", of("cross", plainA, plainB), plainB), 9, "(/a/1.x /b/2) (/a/1.x /b/3) (/a/2.x /b/2) (/a/2.x /b/3) (/b/2) (/b/3)"},
		{"cross of a join", of("cross", leaf("a", "/1.x", ""), of("join", a, b)), 9, "(/a/1.x /a/2.x /b/2) (/a/1.x /a/2.y /b/2)"},
		{"join of a union", of("join", of("union", a, b), b), 9, "2(/a/2.x /b/2) 2(/a/2.y /b/2) 2(/b/2 /b/2) 3(/b/3 /b/3)"},
		{"join of a cross", of("join", of("cross", leaf("a", "/1.x", ""), b), a), 9, "2(/a/1.x /b/2 /a/2.x) 2(/a/1.x /b/2 /a/2.y)"},
		{"group of a join", of("group", of("join", a, b), b), 1, "2(/a/2.x /b/2 /a/2.y /b/2 /b/2) | 3(/b/3)"},
	} {
		shards, stats, err := split(twoInputs, sheaf.Split{Combine: &c.combine, BatchSize: c.batch}, list, 3)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if got := inTuples(shards); got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.name, got, c.want)
		}
		if stats.Partitions != len(shards) || stats.Listed != int64(len(list)) {
			t.Errorf("%s: %+v", c.name, stats)
		}
	}
}

// userError is the mistake of the user's in err, nil without.
func userError(err error) *sheaf.Error {
	var e *sheaf.Error
	errors.As(err, &e)
	return e
}

func TestCombineRefuses(t *testing.T) {
	key := `([0-9])`
	a, b := leaf("a", "/*", ""), leaf("b", "/*", "")
	ka, kb := leaf("a", "/*", key), leaf("b", "/*", key)
	for _, c := range []struct {
		combine sheaf.Combine
		also    func(*sheaf.Split)
		field   string
	}{
		{of("cross", a), nil, "split.combine.of"},
		{of("join", ka, b), nil, "split.combine.of[1].over.key"},
		{of("cross", ka, b), nil, "split.combine.of[0].over.key"},
		{of("cross", a, outer(b)), nil, "split.combine.of[1].over.outer"},
		{of("group", ka, outer(kb)), nil, "split.combine.of[1].over.outer"},
		{of("join", of("union", outer(ka), kb), kb), nil, "split.combine.of[0].of"},
		{of("join", of("cross", a, b), kb), nil, "split.combine.of[0].kind"},
		{of("join", of("cross", ka, kb), kb), nil, "split.combine.of[0].kind"},
		{of("join", ka, leaf("b", "/*", "[0-9]")), nil, "split.combine.of[1].over.key"},
		{of("join", ka, leaf("b", "/*", "(")), nil, "split.combine.of[1].over.key"},
		{of("cross", a, leaf("c", "/*", "")), nil, "split.combine.of[1].over.input"},
		{of("cross", a, leaf("b", "/[", "")), nil, "split.combine.of[1].over.glob"},
		{of("cross", a, b), func(s *sheaf.Split) { s.Glob = "/*" }, "split.combine"},
		{of("cross", a, b), func(s *sheaf.Split) { s.GroupBy = "(x)" }, "split.group_by"},
	} {
		s := &sheaf.Split{Combine: &c.combine}
		if c.also != nil {
			c.also(s)
		}
		_, err := Compile(&sheaf.Job{Inputs: twoInputs, Split: s})
		if e := userError(err); e == nil || e.Class != sheaf.Invalid || e.Field != c.field || e.Hint == "" {
			t.Errorf("%+v: %#v, want an error at %s", c.combine, err, c.field)
		}
	}
}

func TestCombineThatMakesNothing(t *testing.T) {
	list := slices.Concat(tree(0, "/a/", "/a/1"), tree(1, "/b/", "/b/2", "/b/x"))
	for _, c := range []struct {
		combine sheaf.Combine
		field   string
		says    string
	}{
		{of("cross", leaf("a", "/*", ""), leaf("b", "/z*", "")), "split.combine.of[1].over.glob", "/z*"},
		{of("join", leaf("a", "/*", "(.)$"), leaf("b", "/[0-9]", "(.)$")), "split.combine", `input "a" has 1 key such as "1"`},
		{of("join", leaf("a", "/*", "([0-9])"), leaf("b", "/*", "([0-9])")), "split.combine.of[1].over.key", "/b/x"},
	} {
		_, _, err := split(twoInputs, sheaf.Split{Combine: &c.combine, BatchSize: 1}, list, 9)
		if e := userError(err); e == nil || e.Field != c.field || !strings.Contains(e.Error(), c.says) {
			t.Errorf("%#v, want %q at %s", err, c.says, c.field)
		}
		shards, _, err := split(twoInputs, sheaf.Split{Combine: &c.combine, BatchSize: 1, AllowEmpty: true}, list, 9)
		if strings.HasSuffix(c.field, "key") != (err != nil) || len(shards) > 0 {
			t.Errorf("allowed to be empty: %v, %v", shards, err)
		}
	}
}

// TestProductsAreRefusedUnbuilt: 10^16 tuples take no time to refuse.
func TestProductsAreRefusedUnbuilt(t *testing.T) {
	var paths []string
	for i := range 10_000 {
		paths = append(paths, fmt.Sprintf("/a/%d", i))
	}
	list := slices.Concat(tree(0, paths...), tree(1, "/b/1"))
	all := leaf("a", "/*", "")
	for batch, says := range map[int]string{1: "10000 partitions", 100: "10000000000000000 data", 0: "100000000 data"} {
		_, _, err := split(twoInputs, sheaf.Split{Combine: &sheaf.Combine{Kind: "cross", Of: []sheaf.Combine{all, all, all, all}}, BatchSize: batch}, list, 999)
		if e := userError(err); e == nil || e.Class != sheaf.Invalid || e.Limit == "" {
			t.Errorf("batches of %d: %v, want an error of %s", batch, err, says)
		}
	}
}

func TestSharedAtomsCountOnce(t *testing.T) {
	list := slices.Concat(tree(0, "/a/", "/a/model=1000"), tree(1, "/b/", "/b/1=1", "/b/2=1", "/b/3=1"))
	cross := of("cross", leaf("a", "/*", ""), leaf("b", "/*", ""))
	shards, _, err := split(twoInputs, sheaf.Split{Combine: &cross, MaxBytes: 1002}, list, 9)
	if got := inTuples(shards); err != nil || got != "(/a/model /b/1) (/a/model /b/2) | (/a/model /b/3)" || shards[0].Bytes() != 1002 {
		t.Errorf("%s, %v", got, err)
	}
	shards, stats, err := split(twoInputs, sheaf.Split{Combine: &cross, Partitions: 3}, list, 9)
	if err != nil || len(shards) != 3 || stats.Largest != 1001 {
		t.Errorf("%s, %+v, %v", inTuples(shards), stats, err)
	}
}

// drawCombine makes an expression; keyed ones are asked for by a join or group.
func drawCombine(t *rapid.T, depth int, keyed bool) sheaf.Combine {
	if depth == 0 || rapid.IntRange(0, 2).Draw(t, "leaf") == 0 {
		o := &sheaf.Over{
			Input: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "input"),
			Glob:  rapid.SampledFrom([]string{"/*", "/**", "/[ab]*", "/*/*", "/a"}).Draw(t, "glob"),
		}
		if keyed {
			o.Key = rapid.SampledFrom([]string{"^/(.)", "(.)$", "^/(.)(.?)"}).Draw(t, "key")
		}
		return sheaf.Combine{Kind: "over", Over: o}
	}
	c := sheaf.Combine{Kind: rapid.SampledFrom([]string{"cross", "union", "join", "group"}).Draw(t, "kind")}
	n := rapid.IntRange(2, 3).Draw(t, "parts")
	chosen := rapid.IntRange(0, n-1).Draw(t, "keyed part")
	for i := range n {
		wants := c.Kind == "join" || c.Kind == "group" || keyed && (c.Kind == "union" || i == chosen)
		part := drawCombine(t, depth-1, wants)
		for !wants && c.Kind == "cross" && keyed && hasKey(&part) {
			part = drawCombine(t, 0, false) // one part of such a cross has the key
		}
		if c.Kind == "join" && part.Over != nil {
			part.Over.Outer = rapid.Bool().Draw(t, "outer")
		}
		c.Of = append(c.Of, part)
	}
	return c
}

// modelDatum is a tuple with its key, made the plainest way.
type modelDatum struct {
	key   string
	paths []string
}

// modelMost is how many data the model makes; beyond, the case is left out.
const modelMost = 5000

// modelData evaluates an expression by its definition. More than modelMost data may be cut.
func modelData(c sheaf.Combine, list []sheaf.Entry) []modelDatum {
	if o := c.Over; o != nil {
		return modelOver(o, list)
	}
	var parts [][]modelDatum
	for _, p := range c.Of {
		part := modelData(p, list)
		if len(part) > modelMost {
			return part
		}
		parts = append(parts, part)
	}
	switch c.Kind {
	case "union":
		return slices.Concat(parts...)
	case "cross":
		return modelCross(parts)
	}
	var keys []string
	for _, p := range parts {
		for _, d := range p {
			keys = append(keys, d.key)
		}
	}
	slices.Sort(keys)
	var all []modelDatum
	for _, k := range slices.Compact(keys) {
		var mine, outer [][]modelDatum
		whole := true
		for i, p := range parts {
			has := slices.DeleteFunc(slices.Clone(p), func(d modelDatum) bool { return d.key != k })
			if len(has) == 0 {
				whole = false
				continue
			}
			mine = append(mine, has)
			if o := c.Of[i].Over; o != nil && o.Outer {
				outer = append(outer, has)
			}
		}
		switch {
		case c.Kind == "group":
			g := modelDatum{key: k}
			for _, d := range slices.Concat(mine...) {
				g.paths = append(g.paths, d.paths...)
			}
			all = append(all, g)
			continue
		case !whole:
			mine = outer
		}
		if len(mine) > 0 {
			for _, d := range modelCross(mine) {
				all = append(all, modelDatum{k, d.paths})
			}
		}
	}
	return all
}

func modelOver(o *sheaf.Over, list []sheaf.Entry) (all []modelDatum) {
	root := "/" + o.Input
	var dirs []string
	for _, e := range list {
		if !strings.HasPrefix(e.Path, root+"/") {
			continue
		}
		ok, _ := doublestar.Match(strings.Trim(o.Glob, "/"), e.Path[len(root)+1:])
		if strings.Contains(o.Glob, "**") {
			ok = ok && e.Kind == sheaf.EntryFile
		}
		if !ok || slices.ContainsFunc(dirs, func(d string) bool { return strings.HasPrefix(e.Path, d+"/") }) {
			continue
		}
		if e.Kind == sheaf.EntryDir {
			dirs = append(dirs, e.Path)
		}
		d := modelDatum{paths: []string{e.Path}}
		if o.Key != "" {
			d.key = strings.Join(regexp.MustCompile(o.Key).FindStringSubmatch(e.Path[len(root):])[1:], "/")
		}
		all = append(all, d)
	}
	return all
}

func modelCross(parts [][]modelDatum) []modelDatum {
	all := []modelDatum{{}}
	for _, p := range parts {
		var next []modelDatum
		for _, left := range all {
			for _, right := range p {
				if len(next) <= modelMost {
					next = append(next, modelDatum{left.key + right.key, slices.Concat(left.paths, right.paths)})
				}
			}
		}
		all = next
	}
	return all
}

func TestCombinationsFollowTheModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := drawTree(t)
		b := drawTree(t)
		list := slices.Clone(a)
		for i := range list {
			list[i].Path = "/a" + strings.TrimPrefix(list[i].Path, "/in")
		}
		for _, e := range b {
			e.Path, e.Input = "/b"+strings.TrimPrefix(e.Path, "/in"), 1
			list = append(list, e)
		}
		inOrder(list)
		c := drawCombine(t, 3, false)
		for c.Over != nil {
			c = drawCombine(t, 3, false)
		}
		want := modelData(c, list)
		if len(want) > modelMost {
			return
		}
		rule := sheaf.Split{Combine: &c, BatchSize: rapid.IntRange(1, 9).Draw(t, "batch"), AllowEmpty: true, Stable: rapid.Bool().Draw(t, "stable")}
		compiled, err := Compile(&sheaf.Job{Inputs: twoInputs, Split: &rule})
		if err != nil {
			t.Fatal(err)
		}
		pruned := map[string]bool{}
		seen := slices.DeleteFunc(slices.Clone(list), func(e sheaf.Entry) bool {
			dir := e.Path[:strings.LastIndexByte(e.Path, '/')]
			if e.Kind == sheaf.EntryDir {
				pruned[e.Path] = pruned[dir] || !compiled.Descend(e.Path)
			}
			return pruned[dir]
		})
		shards, stats, err := split(twoInputs, rule, seen, 7)
		if err != nil {
			t.Fatal(err)
		}
		var got []sheaf.Datum
		for _, s := range shards {
			if !rule.Stable && len(s.Data) != rule.BatchSize && s.Index != len(shards)-1 {
				t.Fatalf("shard %d has %d data", s.Index, len(s.Data))
			}
			got = append(got, s.Data...)
		}
		if len(got) != len(want) {
			t.Fatalf("%d data, want %d: %v", len(got), len(want), want)
		}
		atoms := 0
		for i, d := range got {
			var paths []string
			for _, a := range d.Atoms {
				paths = append(paths, a.Path)
			}
			atoms += len(paths)
			if !slices.Equal(paths, want[i].paths) || (c.Kind == "join" || c.Kind == "group") && d.Key != want[i].key {
				t.Fatalf("datum %d is %q %v, want %q %v", i, d.Key, paths, want[i].key, want[i].paths)
			}
		}
		if stats.Atoms != int64(atoms) {
			t.Fatalf("%+v, want %d atoms", stats, atoms)
		}
		w := write(t, viewsOf(shards))
		back, err := w.read(0, len(shards))
		if err != nil || fmt.Sprint(back) != fmt.Sprint(shards) {
			t.Fatalf("read back %v, %v\nwritten %v", back, err, shards)
		}
	})
}

// viewsOf are shards in the form in which they are written.
func viewsOf(shards []sheaf.Shard) []View {
	var all []View
	for _, s := range shards {
		v := View{Index: s.Index}
		for _, d := range s.Data {
			for _, a := range d.Atoms {
				v.Atoms = append(v.Atoms, Atom{Path: a.Path, Input: a.Input, Dir: a.Dir, Size: a.Size, Tag: a.Identity})
			}
			v.Ends, v.Keys = append(v.Ends, int32(len(v.Atoms))), append(v.Keys, d.Key)
		}
		v.commonKey()
		v.Bytes = distinctBytes(v.Atoms)
		all = append(all, v)
	}
	return all
}
