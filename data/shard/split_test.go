package shard

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/sheaf-run/agent/sheaf"
)

// tree is a listing, as "path" for a file of as many bytes as its name is
// long, "path=9" for one of 9, "path/" for a directory, "path@kind" for anything else.
// Directories above are added.
func tree(input int32, paths ...string) []sheaf.Entry {
	kinds := map[string]sheaf.EntryKind{"dirlink": sheaf.EntryDirLink, "escape": sheaf.EntryEscape, "dangling": sheaf.EntryDangling, "fifo": sheaf.EntryFIFO, "socket": sheaf.EntrySocket, "device": sheaf.EntryDevice}
	all := map[string]sheaf.Entry{}
	for _, p := range paths {
		e := sheaf.Entry{Path: p, Input: input, Kind: sheaf.EntryFile, MTime: 7}
		if path, kind, ok := strings.Cut(p, "@"); ok {
			e.Path, e.Kind = path, kinds[kind]
		} else if path, size, ok := strings.Cut(p, "="); ok {
			e.Path = path
			fmt.Sscan(size, &e.Size)
		} else if strings.HasSuffix(p, "/") {
			e.Path, e.Kind = p[:len(p)-1], sheaf.EntryDir
		} else {
			e.Size = int64(len(p) - strings.LastIndexByte(p, '/') - 1)
		}
		all[e.Path] = e
		for dir := e.Path; strings.Count(dir, "/") > 1; {
			dir = dir[:strings.LastIndexByte(dir, '/')]
			all[dir] = sheaf.Entry{Path: dir, Input: input, Kind: sheaf.EntryDir}
		}
	}
	var list []sheaf.Entry
	for _, e := range all {
		list = append(list, e)
	}
	inOrder(list)
	return list
}

func inOrder(list []sheaf.Entry) {
	slices.SortFunc(list, func(a, b sheaf.Entry) int { return strings.Compare(a.Path, b.Path) })
}

// split runs a whole split and gives its shards.
func split(inputs []sheaf.Input, rule sheaf.Split, list []sheaf.Entry, step int) ([]sheaf.Shard, Stats, error) {
	r, err := Compile(&sheaf.Job{Inputs: inputs, Split: &rule})
	if err != nil {
		return nil, Stats{}, err
	}
	var shards []sheaf.Shard
	s := NewSplitter(r, func(v *View) error {
		shards = append(shards, v.Shard())
		return nil
	})
	for part := range slices.Chunk(list, step) {
		if err := s.Add(part); err != nil {
			return shards, Stats{}, err
		}
	}
	stats, err := s.Finish()
	return shards, stats, err
}

// text writes shards down as "key: path path | path …", a directory with a
// slash, sizes left out.
func text(shards []sheaf.Shard) string {
	var all []string
	for _, s := range shards {
		var one []string
		if s.Key != "" {
			one = append(one, s.Key+":")
		}
		for _, d := range s.Data {
			for _, a := range d.Atoms {
				if p := a.Path; a.Dir {
					one = append(one, strings.TrimSuffix(p, "/")+"/")
				} else {
					one = append(one, p)
				}
			}
		}
		all = append(all, strings.Join(one, " "))
	}
	return strings.Join(all, " | ")
}

var oneInput = []sheaf.Input{{Name: "in", Mount: "/in"}}

func TestSplitRules(t *testing.T) {
	volumes := []sheaf.Input{{Name: "volume1", Mount: "/input_images/volume1"}, {Name: "volume2", Mount: "/input_images/volume2"}}
	images := slices.Concat(
		tree(0, "/input_images/volume1/image1.jpg", "/input_images/volume1/image2.jpg", "/input_images/volume1/note.txt", "/input_images/volume1/sub/image9.jpg"),
		tree(1, "/input_images/volume2/image1.jpg", "/input_images/volume2/image3.png"))
	images = slices.DeleteFunc(images, func(e sheaf.Entry) bool { return e.Path == "/input_images" })
	images = append(images, sheaf.Entry{Path: "/input_images", Kind: sheaf.EntryDir, Input: -1})
	inOrder(images)
	plain := tree(0, "/in/a.txt", "/in/b.txt", "/in/d/x.txt", "/in/d/e/y.txt", "/in/empty/")
	years := tree(0, "/in/2021/a", "/in/2022/a", "/in/2022/b", "/in/2021/c", "/in/x/a", "/in/other")

	for _, c := range []struct {
		name   string
		inputs []sheaf.Input
		rule   sheaf.Split
		list   []sheaf.Entry
		want   string
		warns  string
	}{
		{"the spec's example", volumes, sheaf.Split{BasePath: "/input_images/", Glob: "/volume*/image*.jpg", BatchSize: 2}, images,
			"/input_images/volume1/image1.jpg /input_images/volume1/image2.jpg | /input_images/volume2/image1.jpg", ""},
		{"base path without its slash", volumes, sheaf.Split{BasePath: "/input_images", Glob: "volume*/image*.jpg", BatchSize: 9}, images,
			"/input_images/volume1/image1.jpg /input_images/volume1/image2.jpg /input_images/volume2/image1.jpg", ""},
		{"several inputs begin at the root", volumes, sheaf.Split{Glob: "/*/*/image1.jpg", BatchSize: 1}, images,
			"/input_images/volume1/image1.jpg | /input_images/volume2/image1.jpg", ""},
		{"mounts are directory atoms", volumes, sheaf.Split{BasePath: "/input_images/", Glob: "/*", BatchSize: 1}, images,
			"/input_images/volume1/ | /input_images/volume2/", ""},
		{"a directory above mounts", volumes, sheaf.Split{Glob: "/*", BatchSize: 1}, images, "/input_images/", ""},
		{"base below a mount", volumes, sheaf.Split{BasePath: "/input_images/volume1/sub", Glob: "/*", BatchSize: 1}, images,
			"/input_images/volume1/sub/image9.jpg", `leaves out all files of volume2`},
		{"whole tree", oneInput, sheaf.Split{Glob: "/", BatchSize: 1}, plain, "/in/", ""},
		{"whole tree of several", volumes, sheaf.Split{Glob: "/", BatchSize: 1}, images, "/", ""},
		{"whole tree cleaned", oneInput, sheaf.Split{Glob: "/.//", BatchSize: 1}, plain, "/in/", ""},
		{"top level", oneInput, sheaf.Split{Glob: "/*", BatchSize: 1}, plain, "/in/a.txt | /in/b.txt | /in/d/ | /in/empty/", ""},
		{"top level without a slash", oneInput, sheaf.Split{Glob: "*", BatchSize: 1}, plain, "/in/a.txt | /in/b.txt | /in/d/ | /in/empty/", ""},
		{"top level files", oneInput, sheaf.Split{Glob: "/*", Match: "files", BatchSize: 1}, plain, "/in/a.txt | /in/b.txt", ""},
		{"top level directories", oneInput, sheaf.Split{Glob: "/*", Match: "dirs", BatchSize: 1}, plain, "/in/d/ | /in/empty/", ""},
		{"trailing slash", oneInput, sheaf.Split{Glob: "/*/", BatchSize: 1}, plain, "/in/d/ | /in/empty/", ""},
		{"trailing slash and any", oneInput, sheaf.Split{Glob: "/*/", Match: "any", BatchSize: 1}, plain, "/in/d/ | /in/empty/", ""},
		{"one level deeper", oneInput, sheaf.Split{Glob: "/*/*", BatchSize: 1}, plain, "/in/d/e/ | /in/d/x.txt", ""},
		{"** takes files", oneInput, sheaf.Split{Glob: "/**", BatchSize: 9}, plain, "/in/a.txt /in/b.txt /in/d/e/y.txt /in/d/x.txt", ""},
		{"** and a name", oneInput, sheaf.Split{Glob: "**/y*", BatchSize: 9}, plain, "/in/d/e/y.txt", ""},
		{"** and any: the outer match wins", oneInput, sheaf.Split{Glob: "/**", Match: "any", BatchSize: 1}, plain,
			"/in/a.txt | /in/b.txt | /in/d/ | /in/empty/", `3 matches lie inside matched directories and go with them: "/in/d/e", "/in/d/e/y.txt", "/in/d/x.txt" in "/in/d"`},
		{"** and directories", oneInput, sheaf.Split{Glob: "/**", Match: "dirs", BatchSize: 1}, plain, "/in/d/ | /in/empty/", "1 match lies inside"},
		{"nested alternatives", oneInput, sheaf.Split{Glob: "/{d,d/e}/*.txt", BatchSize: 9}, plain, "/in/d/e/y.txt /in/d/x.txt", ""},
		{"cleaned", oneInput, sheaf.Split{Glob: "//./d//*.txt", BatchSize: 9}, plain, "/in/d/x.txt", ""},
		{"dots and case", oneInput, sheaf.Split{Glob: "/*", BatchSize: 9}, tree(0, "/in/.a", "/in/A", "/in/a"), "/in/.a /in/A /in/a", ""},
		{"case counts", oneInput, sheaf.Split{Glob: "/a", BatchSize: 9}, tree(0, "/in/A", "/in/a"), "/in/a", ""},
		{"siblings that sort around a directory's content", oneInput, sheaf.Split{Glob: "/*", BatchSize: 1},
			tree(0, "/in/a/x", "/in/a-b/y", "/in/a.txt", "/in/a0", "/in/a/z/z"), "/in/a/ | /in/a-b/ | /in/a.txt | /in/a0", ""},
		{"files in whole-path order", oneInput, sheaf.Split{Glob: "/**", BatchSize: 9},
			tree(0, "/in/a/x", "/in/a-b/y", "/in/a.txt", "/in/a0"), "/in/a-b/y /in/a.txt /in/a/x /in/a0", ""},
		{"the last batch is shorter", oneInput, sheaf.Split{Glob: "/*", BatchSize: 2}, tree(0, "/in/1", "/in/2", "/in/3"), "/in/1 /in/2 | /in/3", ""},
		{"no batch size", oneInput, sheaf.Split{Glob: "/*"}, tree(0, "/in/1", "/in/2", "/in/3"), "/in/1 /in/2 /in/3", ""},
		{"max_bytes", oneInput, sheaf.Split{Glob: "/*", MaxBytes: 10}, tree(0, "/in/1=5", "/in/2=5", "/in/3=0", "/in/4=1", "/in/5=11", "/in/6=0", "/in/7=9"),
			"/in/1 /in/2 /in/3 | /in/4 | /in/5 | /in/6 /in/7", ""},
		{"max_bytes and batch_size", oneInput, sheaf.Split{Glob: "/*", MaxBytes: 10, BatchSize: 2}, tree(0, "/in/1=1", "/in/2=1", "/in/3=1", "/in/4=10"),
			"/in/1 /in/2 | /in/3 | /in/4", ""},
		{"partitions", oneInput, sheaf.Split{Glob: "/*", Partitions: 2}, tree(0, "/in/1=5", "/in/2=5", "/in/3=5", "/in/4=5"), "/in/1 /in/2 | /in/3 /in/4", ""},
		{"partitions, one large", oneInput, sheaf.Split{Glob: "/*", Partitions: 3}, tree(0, "/in/1=100", "/in/2=1", "/in/3=1", "/in/4=1", "/in/5=1"), "/in/1 | /in/2 /in/3 | /in/4 /in/5", ""},
		{"partitions, large at the end", oneInput, sheaf.Split{Glob: "/*", Partitions: 3}, tree(0, "/in/1=1", "/in/2=1", "/in/3=1", "/in/4=100"), "/in/1 /in/2 | /in/3 | /in/4", ""},
		{"partitions of empty files", oneInput, sheaf.Split{Glob: "/*", Partitions: 2}, tree(0, "/in/1=0", "/in/2=0", "/in/3=0", "/in/4=0"), "/in/1 /in/2 | /in/3 /in/4", ""},
		{"fewer atoms than partitions", oneInput, sheaf.Split{Glob: "/*", Partitions: 9}, tree(0, "/in/1=5", "/in/2=0"), "/in/1 | /in/2", ""},
		{"groups", oneInput, sheaf.Split{Glob: "/*/*", GroupBy: "^/([0-9]{4})/", GroupRest: "drop"}, years,
			"2021: /in/2021/a /in/2021/c | 2022: /in/2022/a /in/2022/b", "1 matched path was in no group and dropped"},
		{"groups, the rest last", oneInput, sheaf.Split{Glob: "/**", GroupBy: "^/([0-9]{4})/", GroupRest: "keep"}, years,
			"2021: /in/2021/a /in/2021/c | 2022: /in/2022/a /in/2022/b | /in/other /in/x/a", ""},
		{"groups by key, not by path", oneInput, sheaf.Split{Glob: "/**", GroupBy: "/([a-z]+)$", BatchSize: 1}, tree(0, "/in/1/b", "/in/2/a", "/in/3/b"),
			"a: /in/2/a | b: /in/1/b | b: /in/3/b", ""},
		{"two captures", oneInput, sheaf.Split{Glob: "/**", GroupBy: "^/(.)/(.)"}, tree(0, "/in/1/b", "/in/1/a", "/in/1/bb"), "1/a: /in/1/a | 1/b: /in/1/b /in/1/bb", ""},
		{"groups and batches", oneInput, sheaf.Split{Glob: "/**", GroupBy: "^/(.)", BatchSize: 2}, tree(0, "/in/a1", "/in/a2", "/in/a3", "/in/b1"), "a: /in/a1 /in/a2 | a: /in/a3 | b: /in/b1", ""},
		{"groups and partitions", oneInput, sheaf.Split{Glob: "/**", GroupBy: "^/(.)", Partitions: 3}, tree(0, "/in/a1=9", "/in/a2=9", "/in/b1=1", "/in/b2=1"), "a: /in/a1 | a: /in/a2 | b: /in/b1 /in/b2", ""},
		{"links to directories are not followed", oneInput, sheaf.Split{Glob: "/*", BatchSize: 9}, tree(0, "/in/a", "/in/l@dirlink"), "/in/a", `1 link to a directory was not followed: "/in/l"`},
		{"what is not matched may be anything", oneInput, sheaf.Split{Glob: "/*.txt", BatchSize: 9}, tree(0, "/in/a.txt", "/in/f@fifo", "/in/e@escape", "/in/d@dangling", "/in/s@socket", "/in/v@device"), "/in/a.txt", ""},
		{"directories only, beside a FIFO", oneInput, sheaf.Split{Glob: "/*/", BatchSize: 9}, tree(0, "/in/a/", "/in/f@fifo"), "/in/a/", ""},
		{"NFC by the second chance", oneInput, sheaf.Split{Glob: "/caf\u00e9*", BatchSize: 9}, tree(0, "/in/cafe\u0301.txt", "/in/cafe.txt"), "/in/cafe\u0301.txt", "1 path was matched by the composed (NFC) form"},
		{"NFC in the base path", oneInput, sheaf.Split{Glob: "/*", BasePath: "/in/\u00e9", BatchSize: 9}, tree(0, "/in/e\u0301/a"), "/in/e\u0301/a", "NFC"},
		{"byte for byte needs no warning", oneInput, sheaf.Split{Glob: "/*", BatchSize: 9}, tree(0, "/in/e\u0301"), "/in/e\u0301", ""},
		{"names are bytes", oneInput, sheaf.Split{Glob: "/*", BatchSize: 9}, tree(0, "/in/\xff\n\"'"), "/in/\xff\n\"'", ""},
		{"a file as the base", oneInput, sheaf.Split{Glob: "/", BasePath: "/in/a", BatchSize: 9}, tree(0, "/in/a", "/in/b"), "/in/a", ""},
		{"nothing, allowed", oneInput, sheaf.Split{Glob: "/x", AllowEmpty: true}, plain, "", ""},
		{"a mount at the root", []sheaf.Input{{Name: "r", Mount: "/"}}, sheaf.Split{Glob: "/*", BatchSize: 9}, tree(0, "/a", "/b/c"), "/a /b/", ""},
		{"the whole of a mount at the root", []sheaf.Input{{Name: "r", Mount: "/"}}, sheaf.Split{Glob: "/", BatchSize: 9}, tree(0, "/a", "/b/c"), "/", ""},
	} {
		for _, step := range []int{1, 3, 1000} {
			shards, stats, err := split(c.inputs, c.rule, c.list, step)
			if err != nil {
				t.Errorf("%s: %v", c.name, err)
				break
			}
			if got := text(shards); got != c.want {
				t.Errorf("%s:\n got %s\nwant %s", c.name, got, c.want)
				break
			}
			warned := strings.Join(stats.Warnings, "\n")
			if c.warns == "" && warned != "" || !strings.Contains(warned, c.warns) {
				t.Errorf("%s: warnings %q, want %q", c.name, warned, c.warns)
			}
			if stats.Partitions != len(shards) || stats.Listed != int64(len(c.list)) {
				t.Errorf("%s: stats %+v of %d shards, %d entries", c.name, stats, len(shards), len(c.list))
			}
		}
	}
}

func TestSplitRefuses(t *testing.T) {
	plain := tree(0, "/in/a.txt", "/in/b.txt", "/in/d/x.txt")
	for _, c := range []struct {
		name  string
		rule  sheaf.Split
		list  []sheaf.Entry
		field string
		says  []string
	}{
		{"nothing matched", sheaf.Split{Glob: "/*.jpg"}, plain, "split.glob", []string{`glob "/*.jpg" below "/in"`, "matched nothing", "3 files and 2 directories were listed", `"/in/a.txt"`, `"/in/d"`}},
		{"an empty source", sheaf.Split{Glob: "/*"}, tree(0, "/in/"), "split.glob", []string{"0 files and 1 directory were listed"}},
		{"directories where files are meant", sheaf.Split{Glob: "/**/d"}, plain, "split.match", []string{"takes files only", "1 other path", `"/in/d"`}},
		{"files where directories are meant", sheaf.Split{Glob: "/a*/"}, plain, "split.match", []string{"takes directories only", `"/in/a.txt"`}},
		{"only links to directories", sheaf.Split{Glob: "/l*"}, tree(0, "/in/l@dirlink"), "split.glob", []string{"link to a directory", `"/in/l"`}},
		{"all dropped", sheaf.Split{Glob: "/*", GroupBy: "(9)", GroupRest: "drop"}, plain, "split.group_by", []string{"matched 3 paths", "none of them into a group"}},
		{"in no group", sheaf.Split{Glob: "/**", GroupBy: "^/(d)/"}, plain, "split.group_by", []string{"2 matched paths into no group", `"/in/a.txt", "/in/b.txt"`}},
		{"more groups than partitions", sheaf.Split{Glob: "/**", GroupBy: "/(.)", Partitions: 2}, plain, "split.partitions", []string{"3 groups"}},
		{"more bytes than can be counted", sheaf.Split{Glob: "/*", BatchSize: 1}, tree(0, "/in/a=9223372036854775807", "/in/b=1"), "split", []string{"too large", "limit 8 EiB"}},
		{"a FIFO", sheaf.Split{Glob: "/*"}, tree(0, "/in/a", "/in/p\n@fifo"), "split.glob", []string{`"/in/p\n" is a FIFO`}},
		{"a FIFO among files", sheaf.Split{Glob: "/**"}, tree(0, "/in/a", "/in/p@fifo"), "split.glob", []string{`"/in/p" is a FIFO`}},
		{"a socket", sheaf.Split{Glob: "/*"}, tree(0, "/in/s@socket"), "split.glob", []string{`"/in/s" is a socket`}},
		{"a device", sheaf.Split{Glob: "/*"}, tree(0, "/in/v@device"), "split.glob", []string{`"/in/v" is a device`}},
		{"an escape", sheaf.Split{Glob: "/*"}, tree(0, "/in/e@escape"), "split.glob", []string{`"/in/e" is a link out of the source`}},
		{"a dangling link", sheaf.Split{Glob: "/*"}, tree(0, "/in/d@dangling"), "split.glob", []string{`"/in/d" is a dangling link`}},
		{"a FIFO in a matched directory", sheaf.Split{Glob: "/*"}, tree(0, "/in/d/e/p@fifo"), "split.glob", []string{`"/in/d/e/p" is a FIFO`, `"/in/d"`}},
	} {
		_, _, err := split(oneInput, c.rule, c.list, 7)
		var e *sheaf.Error
		if !errors.As(err, &e) {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if e.Class != sheaf.Invalid || e.Field != c.field || e.Hint == "" {
			t.Errorf("%s: %s error at %q with hint %q", c.name, e.Class, e.Field, e.Hint)
		}
		for _, s := range c.says {
			if !strings.Contains(e.Error(), s) {
				t.Errorf("%s: %q does not say %q", c.name, e, s)
			}
		}
	}
}

func TestPartitionLimit(t *testing.T) {
	r, err := Compile(&sheaf.Job{Inputs: oneInput, Split: &sheaf.Split{Glob: "/*", BatchSize: 1}})
	if err != nil {
		t.Fatal(err)
	}
	made := 0
	s := NewSplitter(r, func(*View) error { made++; return nil })
	s.out.(*straight).cut.most = 3
	err = s.Add(tree(0, "/in/1", "/in/2", "/in/3", "/in/4", "/in/5"))
	var e *sheaf.Error
	if !errors.As(err, &e) || e.Class != sheaf.Invalid || e.Limit != "10000000 partitions" || made != 3 {
		t.Fatalf("made %d partitions, then %v", made, err)
	}
	if _, again := s.Finish(); !errors.Is(again, err) {
		t.Fatalf("Finish after an error gives %v", again)
	}
}

func TestSinkErrorEndsTheSplit(t *testing.T) {
	r, err := Compile(&sheaf.Job{Inputs: oneInput, Split: &sheaf.Split{Glob: "/*", BatchSize: 1}})
	if err != nil {
		t.Fatal(err)
	}
	full := errors.New("no room")
	s := NewSplitter(r, func(*View) error { return full })
	if err := s.Add(tree(0, "/in/1", "/in/2", "/in/3")); !errors.Is(err, full) {
		t.Fatal(err)
	}
	if _, err := s.Finish(); !errors.Is(err, full) {
		t.Fatal(err)
	}
}

func TestListingOutOfOrderIsRefused(t *testing.T) {
	r, err := Compile(&sheaf.Job{Inputs: oneInput, Split: &sheaf.Split{Glob: "/*", BatchSize: 1}})
	if err != nil {
		t.Fatal(err)
	}
	s := NewSplitter(r, func(*View) error { return nil })
	if err := s.Add([]sheaf.Entry{{Path: "/in/b", Kind: sheaf.EntryFile}, {Path: "/in/a", Kind: sheaf.EntryFile}}); err == nil || sheaf.ClassOf(err) != sheaf.Internal {
		t.Fatal(err)
	}
}

func TestDirectoryAtoms(t *testing.T) {
	list := tree(0, "/in/d/a=3", "/in/d/e/b=4", "/in/d.txt=5")
	shards, stats, err := split(oneInput, sheaf.Split{Glob: "/*", BatchSize: 1}, list, 2)
	if err != nil {
		t.Fatal(err)
	}
	d := shards[0].Data[0].Atoms[0]
	if d.Path != "/in/d" || d.Size != 7 || !d.Dir || d.Input != "in" || !strings.HasPrefix(d.Identity, "tree:") {
		t.Fatalf("%+v", d)
	}
	if f := shards[1].Data[0].Atoms[0]; f.Identity != "stat:5:7" || f.Size != 5 || f.Dir {
		t.Fatalf("%+v", f)
	}
	if stats.Bytes != 12 || stats.Smallest != 5 || stats.Largest != 7 || stats.Atoms != 2 {
		t.Fatalf("%+v", stats)
	}
	h := NewTreeHash("/in/d")
	for i := range list {
		if strings.HasPrefix(list[i].Path, "/in/d/") {
			h.Add(&list[i])
		}
	}
	if id, size := h.Identity(); id != d.Identity || size != 7 {
		t.Fatalf("TreeHash gives %s and %d, the split %s", id, size, d.Identity)
	}
	for name, other := range map[string][]sheaf.Entry{
		"size":      tree(0, "/in/d/a=4", "/in/d/e/b=3", "/in/d.txt=5"),
		"name":      tree(0, "/in/d/aa=3", "/in/d/e/b=4", "/in/d.txt=5"),
		"empty dir": tree(0, "/in/d/a=3", "/in/d/e/b=4", "/in/d/f/", "/in/d.txt=5"),
	} {
		shards, _, err := split(oneInput, sheaf.Split{Glob: "/*", BatchSize: 1}, other, 2)
		if err != nil {
			t.Fatal(err)
		}
		if shards[0].Data[0].Atoms[0].Identity == d.Identity {
			t.Errorf("another %s gives the same identity", name)
		}
	}
}
