package stage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sheaf-run/agent/data/shard"
	"github.com/sheaf-run/agent/data/source"
	"github.com/sheaf-run/agent/sheaf"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func write(t testing.TB, name, content string) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(name), 0o755))
	must(t, os.WriteFile(name, []byte(content), 0o644))
}

func open(t testing.TB, path string) source.Source {
	t.Helper()
	s, err := source.Open("file://"+path, source.Config{Files: []source.Root{{Path: "/"}}})
	must(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

// rooted is a source that says where its root is, when asked for "".
type rooted struct {
	source.Source
	root string
}

func (r rooted) Local(rel string) (string, bool) {
	if rel == "" {
		return r.root, true
	}
	return r.Source.Local(rel)
}

// noRoot does not.
type noRoot struct{ source.Source }

func (r noRoot) Local(rel string) (string, bool) {
	if rel == "" {
		return "", false
	}
	return r.Source.Local(rel)
}

func openRooted(t testing.TB, path string) source.Source { return rooted{open(t, path), path} }

// shards splits the inputs as a run would.
func shards(t testing.TB, inputs []Input, split sheaf.Split) []sheaf.Shard {
	t.Helper()
	job := &sheaf.Job{Split: &split}
	for _, in := range inputs {
		root := in.Source.(rooted).root
		job.Inputs = append(job.Inputs, sheaf.Input{Name: in.Name, Source: "file://" + root, Mount: in.Mount})
	}
	rule, err := shard.Compile(job)
	must(t, err)
	tree, err := source.OpenTree(job.Inputs, source.Config{Files: []source.Root{{Path: "/"}}})
	must(t, err)
	defer tree.Close()
	var all []sheaf.Shard
	sp := shard.NewSplitter(rule, func(v *shard.View) error { all = append(all, v.Shard()); return nil })
	must(t, tree.Walk(context.Background(), rule.Descend, sp.Add))
	_, err = sp.Finish()
	must(t, err)
	return all
}

// seen lists what a task would find in the mounts, with content.
func seen(t testing.TB, tree *Tree) string {
	t.Helper()
	var all []string
	for _, m := range tree.Mounts {
		if !m.ReadOnly {
			t.Errorf("%s is writable", m.Target)
		}
		must(t, filepath.WalkDir(m.Host, func(p string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			if !d.Type().IsRegular() {
				t.Errorf("%s is no file", p)
			}
			b, err := os.ReadFile(p)
			all = append(all, fmt.Sprintf("%s=%s", filepath.Join(m.Target, strings.TrimPrefix(p, m.Host)), b))
			return err
		}))
	}
	sort.Strings(all)
	return strings.Join(all, " ")
}

func TestATaskSeesItsAtomsAndNoOthers(t *testing.T) {
	one, two := t.TempDir(), t.TempDir()
	for i := range 4 {
		write(t, fmt.Sprintf("%s/d%d/f%d", one, i/2, i), fmt.Sprint("one", i))
		write(t, fmt.Sprintf("%s/f%d", two, i), fmt.Sprint("two", i))
	}
	must(t, os.Symlink("../d0/f0", one+"/d1/link"))
	must(t, os.Symlink(one+"/d0", one+"/d1/dirlink"))
	write(t, two+"/bad\xff\nname", "b")
	inputs := []Input{{"one", "/in/one", openRooted(t, one)}, {"two", "/in/two", openRooted(t, two)}}
	rootless := []Input{{"one", "/in/one", noRoot{inputs[0].Source.(source.Source)}}, {"two", "/in/two", noRoot{inputs[1].Source.(source.Source)}}}
	split := func(base, glob string, batch int) sheaf.Split {
		return sheaf.Split{BasePath: base, Glob: glob, BatchSize: batch}
	}
	for _, c := range []struct {
		split sheaf.Split
		want  []string
	}{
		{split("/in", "/*/f*", 3), []string{"/in/two/f0=two0 /in/two/f1=two1 /in/two/f2=two2", "/in/two/f3=two3"}},
		{split("/in/one", "/*", 1), []string{"/in/one/d0/f0=one0 /in/one/d0/f1=one1", "/in/one/d1/f2=one2 /in/one/d1/f3=one3 /in/one/d1/link=one0"}},
		{split("/in/one", "/d1/l*", 1), []string{"/in/one/d1/link=one0"}},
		{split("/in/two", "/bad*", 1), []string{"/in/two/bad\xff\nname=b"}},
		{split("/in/one", "/", 1), []string{"/in/one/d0/f0=one0 /in/one/d0/f1=one1 /in/one/d1/f2=one2 /in/one/d1/f3=one3 /in/one/d1/link=one0"}},
	} {
		for _, links := range []bool{true, false} {
			all := shards(t, inputs, c.split)
			if len(all) != len(c.want) {
				t.Fatalf("%s: %d shards, want %d", c.split.Glob, len(all), len(c.want))
			}
			for i, sh := range all {
				for k, inputs := range [][]Input{inputs, rootless} {
					if k == 0 && links && c.split.Glob == "/" {
						continue // mounted as it lies, see below
					}
					st := &Stager{Links: links}
					dir := filepath.Join(t.TempDir(), "x", "tree")
					tree, err := st.Stage(context.Background(), dir, sh, inputs)
					must(t, err)
					if got := seen(t, tree); got != c.want[i] {
						t.Errorf("%s links=%v shard %d: got %q, want %q", c.split.Glob, links, i, got, c.want[i])
					}
					if len(tree.Mounts) != 2 {
						t.Errorf("mounts: %v", tree.Mounts)
					}
					must(t, tree.Verify())
					must(t, tree.Remove())
					if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
						t.Errorf("left behind: %v", err)
					}
				}
			}
		}
	}
}

func TestWholeTreeIsOneMount(t *testing.T) {
	one, two := t.TempDir(), t.TempDir()
	write(t, one+"/a/b", "1")
	write(t, two+"/c", "2")
	inputs := []Input{{"one", "/in/one", openRooted(t, one)}, {"two", "/in/two", openRooted(t, two)}}
	all := shards(t, inputs, sheaf.Split{BasePath: "/", Glob: "/", BatchSize: 1})
	dir := filepath.Join(t.TempDir(), "tree")
	tree, err := (&Stager{Links: true}).Stage(context.Background(), dir, all[0], inputs)
	must(t, err)
	if got := fmt.Sprint(tree.Mounts); got != fmt.Sprintf("[{%s /in/one true} {%s /in/two true}]", one, two) {
		t.Errorf("mounts: %s", got)
	}
	must(t, tree.Verify())
	write(t, one+"/a/new", "x")
	if err := tree.Verify(); sheaf.ClassOf(err) != sheaf.Conflict || !strings.Contains(err.Error(), `directory "/" changed since the split`) {
		t.Errorf("verify: %v", err)
	}
	must(t, tree.Remove())
	if _, err := (&Stager{Links: true}).Stage(context.Background(), dir, all[0], inputs); sheaf.ClassOf(err) != sheaf.Conflict {
		t.Errorf("stage: %v", err)
	}
	if _, err := os.Stat(one + "/a/b"); err != nil {
		t.Errorf("the original went with the tree: %v", err)
	}

	// Without links nothing of the original is handed out.
	whole := shard.Whole([]sheaf.Input{{Name: "one", Mount: "/in/one"}, {Name: "two", Mount: "/in/two"}})
	tree, err = (&Stager{}).Stage(context.Background(), dir, whole, inputs)
	must(t, err)
	if got := seen(t, tree); got != "/in/one/a/b=1 /in/one/a/new=x /in/two/c=2" {
		t.Errorf("copied: %s", got)
	}
	for _, m := range tree.Mounts {
		if !strings.HasPrefix(m.Host, dir) {
			t.Errorf("%s is an original", m.Host)
		}
	}
	must(t, tree.Remove())
	if _, err := (&Stager{}).Whole(inputs); sheaf.ClassOf(err) != sheaf.Unsupported {
		t.Errorf("whole without links: %v", err)
	}
	if tree, err = (&Stager{Links: true}).Whole(inputs); err != nil || len(tree.Mounts) != 2 || tree.Remove() != nil {
		t.Errorf("whole: %v %v", tree, err)
	}
}

func TestSingleFileInput(t *testing.T) {
	d := t.TempDir()
	write(t, d+"/list.txt", "lines")
	write(t, d+"/other.txt", "secret")
	in := Input{"list", "/in", open(t, d+"/list.txt")}
	for _, links := range []bool{true, false} {
		for _, sh := range []sheaf.Shard{
			shard.Whole([]sheaf.Input{{Name: "list", Mount: "/in"}}),
			{Data: []sheaf.Datum{{Atoms: []sheaf.Atom{{Path: "/in/list.txt", Input: "list"}}}}},
		} {
			tree, err := (&Stager{Links: links}).Stage(context.Background(), filepath.Join(t.TempDir(), "t"), sh, []Input{in})
			must(t, err)
			if got := seen(t, tree); got != "/in/list.txt=lines" {
				t.Errorf("saw %q", got)
			}
			must(t, tree.Verify())
			must(t, tree.Remove())
		}
	}
}

func TestNothingStagedNothingMade(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tree")
	tree, err := (&Stager{Links: true}).Stage(context.Background(), dir, sheaf.Shard{}, nil)
	must(t, err)
	must(t, tree.Verify())
	must(t, tree.Remove())
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("made %s", dir)
	}
}

func atoms(paths ...string) sheaf.Shard {
	var sh sheaf.Shard
	for _, p := range paths {
		sh.Data = append(sh.Data, sheaf.Datum{Atoms: []sheaf.Atom{{Path: p, Input: "i"}}})
	}
	return sh
}

func TestChangesAreNamed(t *testing.T) {
	for name, c := range map[string]struct {
		change func(t *testing.T, file string)
		says   string
	}{
		"longer":   {func(t *testing.T, f string) { write(t, f, "longer") }, "it had 3 bytes"},
		"touched":  {func(t *testing.T, f string) { must(t, os.Chtimes(f, time.Time{}, time.Unix(1, 5))) }, "1970-01-01T00:00:01.000000005Z"},
		"gone":     {func(t *testing.T, f string) { must(t, os.Remove(f)) }, "it is gone"},
		"dir gone": {func(t *testing.T, f string) { must(t, os.RemoveAll(filepath.Dir(f))) }, "it is gone"},
	} {
		for _, links := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s links=%v", name, links), func(t *testing.T) {
				d := t.TempDir()
				f := d + "/sub/f"
				write(t, f, "was")
				inputs := []Input{{"i", "/in", openRooted(t, d)}}
				all := shards(t, inputs, sheaf.Split{Glob: "/sub/*", BatchSize: 1})
				dir := filepath.Join(t.TempDir(), "tree")
				tree, err := (&Stager{Links: links}).Stage(context.Background(), dir, all[0], inputs)
				must(t, err)
				c.change(t, f)
				// A copy, and a link whose original's name is gone, are what the split saw.
				err = tree.Verify()
				if want := links && !strings.Contains(name, "gone"); want != (sheaf.ClassOf(err) == sheaf.Conflict && err != nil) {
					t.Errorf("verify: %v", err)
				}
				must(t, tree.Remove())
				_, err = (&Stager{Links: links}).Stage(context.Background(), dir, all[0], inputs)
				if sheaf.ClassOf(err) != sheaf.Conflict || !strings.Contains(err.Error(), `"/in/sub/f" changed since the split`) || !strings.Contains(err.Error(), c.says) {
					t.Errorf("stage: %v", err)
				}
				if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
					t.Error("left behind after an error")
				}
			})
		}
	}
}

func TestRefusals(t *testing.T) {
	d := t.TempDir()
	write(t, d+"/in/x/real", "r")
	write(t, d+"/secret", "s")
	in := d + "/in"
	must(t, os.Symlink("../../secret", in+"/x/up"))
	must(t, os.Symlink("/etc/passwd", in+"/x/abs"))
	must(t, os.Symlink("loop", in+"/x/loop"))
	must(t, os.Symlink("gone", in+"/x/dangling"))
	must(t, unix.Mkfifo(in+"/x/fifo", 0o644))
	must(t, unix.Mknod(in+"/x/null", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	l, err := net.Listen("unix", in+"/x/socket")
	must(t, err)
	defer l.Close()
	must(t, os.Symlink(d, in+"/away"))
	inputs := []Input{{"i", "/in", openRooted(t, in)}}
	for path, says := range map[string]string{
		"/in/x/up": "link that leads out", "/in/x/abs": "link that leads out", "/in/x/loop": "link that leads out", "/in/x/dangling": "link",
		"/in/x/fifo": "is a FIFO", "/in/x/null": "is a device", "/in/x/socket": "is a socket",
		"/in/away/secret": "", "/elsewhere/f": "lies in no input", "/in/x": "is a directory",
	} {
		for _, links := range []bool{true, false} {
			_, err := (&Stager{Links: links}).Stage(context.Background(), filepath.Join(t.TempDir(), "t"), atoms(path), inputs)
			if err == nil || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), path) {
				t.Errorf("%s links=%v: %v", path, links, err)
			}
		}
	}
	for _, name := range []string{"up", "fifo", "dangling"} {
		must(t, os.MkdirAll(in+"/y", 0o755))
		must(t, os.Rename(in+"/x/"+name, in+"/y/"+name))
		for _, links := range []bool{true, false} {
			sh := sheaf.Shard{Data: []sheaf.Datum{{Atoms: []sheaf.Atom{{Path: "/in/y", Dir: true}}}}}
			_, err := (&Stager{Links: links}).Stage(context.Background(), filepath.Join(t.TempDir(), "t"), sh, inputs)
			if err == nil || !strings.Contains(err.Error(), "/in/y/"+name) {
				t.Errorf("directory with %s: %v", name, err)
			}
		}
		must(t, os.Remove(in+"/y/"+name))
	}
}

func TestAcrossFileSystems(t *testing.T) {
	src := t.TempDir()
	write(t, src+"/d/f", "content")
	must(t, os.Symlink("d/f", src+"/link"))
	must(t, os.Chtimes(src+"/d/f", time.Time{}, time.Unix(1000, 7)))
	dst, err := os.MkdirTemp("/dev/shm", "stage-test")
	must(t, err)
	defer os.RemoveAll(dst)
	inputs := []Input{{"i", "/in", openRooted(t, src)}}
	tree, err := (&Stager{Links: true}).Stage(context.Background(), dst+"/t", atoms("/in/d/f", "/in/link", "/in/d/f"), inputs)
	must(t, err)
	if got := seen(t, tree); got != "/in/d/f=content /in/link=content" || tree.Bytes != 14 {
		t.Errorf("saw %q, copied %d", got, tree.Bytes)
	}
	st, err := os.Stat(tree.Mounts[0].Host + "/d/f")
	must(t, err)
	if !st.ModTime().Equal(time.Unix(1000, 7)) {
		t.Errorf("time is %v", st.ModTime())
	}
	must(t, tree.Verify())
	must(t, tree.Remove())
}

func TestShardFile(t *testing.T) {
	d := t.TempDir()
	write(t, d+"/f", "x")
	st := &Stager{Links: true, ShardMount: "/sheaf", ShardFile: func(w io.Writer, s sheaf.Shard) error {
		_, err := fmt.Fprintf(w, "shard %d", s.Index)
		return err
	}}
	sh := atoms("/in/f")
	sh.Index = 4
	tree, err := st.Stage(context.Background(), filepath.Join(t.TempDir(), "t"), sh, []Input{{"i", "/in", openRooted(t, d)}})
	must(t, err)
	if got := seen(t, tree); got != "/in/f=x /sheaf/shard.jsonl=shard 4" {
		t.Errorf("saw %q", got)
	}
	st.ShardFile = func(io.Writer, sheaf.Shard) error { return errors.New("no luck") }
	dir := filepath.Join(t.TempDir(), "t")
	if _, err := st.Stage(context.Background(), dir, sh, []Input{{"i", "/in", openRooted(t, d)}}); err == nil || !strings.Contains(err.Error(), "no luck") {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	var many []string
	for i := range checkEvery + 1 {
		write(t, fmt.Sprintf("%s/n%d", d, i), "")
		many = append(many, fmt.Sprintf("/in/n%d", i))
	}
	if _, err := (&Stager{Links: true}).Stage(ctx, dir, atoms(many...), []Input{{"i", "/in", openRooted(t, d)}}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func BenchmarkStage1000(b *testing.B) {
	d := b.TempDir()
	var sh sheaf.Shard
	for i := range 1000 {
		name := fmt.Sprintf("d%d/file%05d.jpg", i/100, i)
		write(b, d+"/"+name, strings.Repeat("x", 2000))
		st, err := os.Stat(d + "/" + name)
		must(b, err)
		sh.Data = append(sh.Data, sheaf.Datum{Atoms: []sheaf.Atom{{Path: "/in/" + name, Size: 2000, Identity: sheaf.StatIdentity(2000, st.ModTime().UnixNano())}}})
	}
	inputs := []Input{{"i", "/in", openRooted(b, d)}}
	dir := b.TempDir() + "/t"
	for _, mode := range []string{"link", "copy"} {
		b.Run(mode, func(b *testing.B) {
			var stage, verify, remove time.Duration
			for b.Loop() {
				t0 := time.Now()
				tree, err := (&Stager{Links: mode == "link"}).Stage(context.Background(), dir, sh, inputs)
				must(b, err)
				t1 := time.Now()
				must(b, tree.Verify())
				t2 := time.Now()
				must(b, tree.Remove())
				stage, verify, remove = stage+t1.Sub(t0), verify+t2.Sub(t1), remove+time.Since(t2)
			}
			for name, d := range map[string]time.Duration{"stage-ms": stage, "verify-ms": verify, "remove-ms": remove} {
				b.ReportMetric(d.Seconds()*1000/float64(b.N), name)
			}
		})
	}
	b.Run("linkat", func(b *testing.B) {
		for b.Loop() {
			linkOnly(b, d, dir)
			b.StopTimer()
			must(b, os.RemoveAll(dir))
			b.StartTimer()
		}
	})
	b.Run("cp -rl", func(b *testing.B) {
		for b.Loop() {
			must(b, exec.Command("cp", "-rl", d, dir).Run())
			b.StopTimer()
			must(b, os.RemoveAll(dir))
			b.StartTimer()
		}
	})
}

// linkOnly is what a file system takes for the links alone of the files in the directories in from.
func linkOnly(b *testing.B, from, to string) {
	must(b, os.Mkdir(to, 0o755))
	for i := range 10 {
		in, out := fmt.Sprintf("%s/d%d", from, i), fmt.Sprintf("%s/d%d", to, i)
		must(b, os.Mkdir(out, 0o755))
		src, err := unix.Open(in, unix.O_PATH|unix.O_DIRECTORY, 0)
		must(b, err)
		dst, err := unix.Open(out, unix.O_PATH|unix.O_DIRECTORY, 0)
		must(b, err)
		for k := range 100 {
			name := fmt.Sprintf("file%05d.jpg", i*100+k)
			must(b, unix.Linkat(src, name, dst, name, 0))
		}
		must(b, unix.Close(src))
		must(b, unix.Close(dst))
	}
}
