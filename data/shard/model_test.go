package shard

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/bmatcuk/doublestar/v4"
	"pgregory.net/rapid"

	"github.com/sheaf-run/agent/sheaf"
)

// drawTree makes the listing of a small tree whose names sort in all ways around a slash.
func drawTree(t *rapid.T) []sheaf.Entry {
	name := rapid.SampledFrom([]string{"a", "a-", "a-b", "a.x", "a0", "b", "ab", "\xff", "é"})
	var paths []string
	for range rapid.IntRange(0, 25).Draw(t, "entries") {
		p := "/in/" + strings.Join(rapid.SliceOfN(name, 1, 4).Draw(t, "path"), "/")
		if rapid.IntRange(0, 5).Draw(t, "dir") == 0 {
			p += "/"
		} else {
			p += fmt.Sprintf("=%d", rapid.SampledFrom([]int{0, 1, 2, 3, 5, 8, 13, 100}).Draw(t, "size"))
		}
		paths = append(paths, p)
	}
	// A path that is drawn as a file and as a directory above others is one.
	list := tree(0, append(paths, "/in/")...)
	for i := range list {
		for _, other := range list {
			if strings.HasPrefix(other.Path, list[i].Path+"/") {
				list[i].Kind, list[i].Size, list[i].MTime = sheaf.EntryDir, 0, 0
			}
		}
	}
	return list
}

func drawRule(t *rapid.T) sheaf.Split {
	rule := sheaf.Split{
		Glob:       rapid.SampledFrom([]string{"/*", "/*/*", "/**/*", "/a/**/*", "/a*", "/**/a*", "/{a,b}/*", "/*/", "/[ab]*/?", "/a", "/*/*/*"}).Draw(t, "glob"),
		Match:      rapid.SampledFrom([]string{"", "any", "dirs"}).Draw(t, "match"),
		AllowEmpty: true,
	}
	if rapid.Bool().Draw(t, "grouped") {
		rule.GroupBy = rapid.SampledFrom([]string{"^/(.)", "/([^/]*)$", "^/([^/]+)/([^/]+)"}).Draw(t, "group_by")
		rule.GroupRest = rapid.SampledFrom([]string{"keep", "drop"}).Draw(t, "group_rest")
	}
	if rapid.IntRange(0, 2).Draw(t, "how") == 0 {
		rule.Partitions = rapid.IntRange(1, 30).Draw(t, "partitions")
	} else {
		rule.BatchSize = rapid.IntRange(0, 4).Draw(t, "batch_size")
		rule.MaxBytes = sheaf.Size(rapid.SampledFrom([]int{0, 1, 7, 50}).Draw(t, "max_bytes"))
	}
	return rule
}

// modelAtoms is what the rules say, each written down as plainly as can be.
func modelAtoms(rule sheaf.Split, list []sheaf.Entry) (atoms []Atom) {
	pattern := strings.Trim(rule.Glob, "/")
	for _, e := range list {
		if e.Path == "/in" {
			continue
		}
		ok, err := doublestar.Match(pattern, strings.TrimPrefix(e.Path, "/in/"))
		if err != nil {
			panic(err)
		}
		dir := e.Kind == sheaf.EntryDir
		switch {
		case strings.HasSuffix(rule.Glob, "/") || rule.Match == "dirs":
			ok = ok && dir
		case rule.Match == "" && strings.Contains(pattern, "**"):
			ok = ok && !dir
		}
		if !ok {
			continue
		}
		inside := slices.ContainsFunc(atoms, func(a Atom) bool { return a.Dir && strings.HasPrefix(e.Path, a.Path+"/") })
		if inside {
			continue
		}
		a := Atom{Path: e.Path, Dir: dir, Size: e.Size}
		for _, f := range list {
			if dir && f.Kind == sheaf.EntryFile && strings.HasPrefix(f.Path, e.Path+"/") {
				a.Size += f.Size
			}
		}
		atoms = append(atoms, a)
	}
	return atoms
}

// modelGroups puts atoms into groups in their order.
func modelGroups(rule sheaf.Split, atoms []Atom) (keys []string, groups [][]Atom) {
	if rule.GroupBy == "" {
		return []string{""}, [][]Atom{atoms}
	}
	re := regexp.MustCompile(rule.GroupBy)
	by := map[string][]Atom{}
	var rest []Atom
	for _, a := range atoms {
		m := re.FindStringSubmatch(strings.TrimPrefix(a.Path, "/in"))
		if m == nil {
			rest = append(rest, a)
			continue
		}
		k := strings.Join(m[1:], "\x00")
		if by[k] == nil {
			keys = append(keys, k)
		}
		by[k] = append(by[k], a)
	}
	slices.Sort(keys)
	for i, k := range keys {
		groups = append(groups, by[k])
		keys[i] = strings.ReplaceAll(k, "\x00", "/")
	}
	if rule.GroupRest == "keep" && rest != nil {
		keys, groups = append(keys, ""), append(groups, rest)
	}
	return keys, groups
}

func TestSplitFollowsTheModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		list, rule := drawTree(t), drawRule(t)
		keys, groups := modelGroups(rule, modelAtoms(rule, list))
		shards, stats, err := split(oneInput, rule, list, rapid.IntRange(1, 9).Draw(t, "step"))
		if err != nil {
			if rule.Partitions > 0 && len(groups) > rule.Partitions {
				return // refused by its name
			}
			t.Fatal(err)
		}
		var all []Atom
		for i, g := range groups {
			var mine []sheaf.Shard
			for n := 0; n < len(g); {
				if len(shards) == 0 || shards[0].Key != keys[i] {
					t.Fatalf("group %q has %d more atoms, next is %v", keys[i], len(g)-n, shards)
				}
				s := shards[0]
				for _, d := range s.Data {
					a := d.Atoms[0]
					if n == len(g) || a.Path != g[n].Path || a.Size != g[n].Size || a.Dir != g[n].Dir || len(d.Atoms) != 1 || d.Key != s.Key {
						t.Fatalf("shard %d of group %q holds %+v behind %v", s.Index, keys[i], a, g[:n])
					}
					n++
				}
				mine, shards = append(mine, s), shards[1:]
			}
			checkBatches(t, rule, mine, g)
			all = append(all, g...)
		}
		if len(shards) > 0 {
			t.Fatalf("left over: %v", shards)
		}
		if stats.Atoms != int64(len(all)) || stats.Listed != int64(len(list)) {
			t.Fatalf("%+v of %d atoms, %d listed", stats, len(all), len(list))
		}
		if rule.Partitions > 0 && stats.Partitions != min(rule.Partitions, len(all)) {
			t.Fatalf("%d partitions of %d atoms, %d asked for", stats.Partitions, len(all), rule.Partitions)
		}
	})
}

// checkBatches checks where the shards of a group end.
func checkBatches(t *rapid.T, rule sheaf.Split, shards []sheaf.Shard, atoms []Atom) {
	var total, largest int64
	for _, a := range atoms {
		total, largest = total+a.Size, max(largest, a.Size)
	}
	at := 0
	for i, s := range shards {
		n := len(s.Data)
		if n == 0 {
			t.Fatalf("shard %d is empty", s.Index)
		}
		at += n
		if rule.Partitions > 0 {
			if fair := total/int64(len(shards)) + largest; s.Bytes() > fair {
				t.Fatalf("shard %d has %d bytes of %d, in %d shards, the largest atom having %d", s.Index, s.Bytes(), total, len(shards), largest)
			}
			continue
		}
		if rule.BatchSize > 0 && n > rule.BatchSize || rule.MaxBytes > 0 && n > 1 && s.Bytes() > int64(rule.MaxBytes) {
			t.Fatalf("shard %d has %d atoms and %d bytes", s.Index, n, s.Bytes())
		}
		if i == len(shards)-1 {
			continue
		}
		fullByCount := rule.BatchSize > 0 && n == rule.BatchSize
		fullByBytes := rule.MaxBytes > 0 && s.Bytes()+atoms[at].Size > int64(rule.MaxBytes)
		if !fullByCount && !fullByBytes {
			t.Fatalf("shard %d ended early: %d atoms, %d bytes, next has %d", s.Index, n, s.Bytes(), atoms[at].Size)
		}
	}
}
