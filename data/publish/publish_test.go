package publish_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
	"github.com/minio/minio-go/v7"

	"github.com/sheaf-run/agent/data/publish"
	"github.com/sheaf-run/agent/data/source"
	"github.com/sheaf-run/agent/data/source/car"
	"github.com/sheaf-run/agent/data/source/s3"
	"github.com/sheaf-run/agent/sheaf"
)

// world is a place with a way to look at what lies there behind its back.
type world struct {
	publish.Place
	read func(t *testing.T) map[string]string // name to content; "→" and what it leads to for a link
}

// worlds are a place of each kind. Of the service's requests every seventh fails.
func worlds(t *testing.T) map[string]world {
	dir := filepath.Join(t.TempDir(), "allowed")
	must(t, os.Mkdir(dir, 0o755))
	conf := publish.Config{Dirs: []string{dir}}
	onDisk, err := conf.Open("file://" + dir + "/results/here")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { onDisk.Close() })
	asCars, err := conf.Open("car://" + dir + "/cars")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { asCars.Close() })
	inBucket, client := bucket(t, 7)
	return map[string]world{
		"car":  {asCars, func(t *testing.T) map[string]string { return unpacked(t, dir+"/cars") }},
		"file": {onDisk, func(t *testing.T) map[string]string { return tree(t, dir+"/results/here") }},
		"s3":   {inBucket, func(t *testing.T) map[string]string { return objects(t, client, "results/here/") }},
	}
}

// bucket is a place in a bucket of which every n-th request fails.
func bucket(t *testing.T, n int64) (publish.Place, *minio.Client) {
	backend := s3mem.New()
	if err := backend.CreateBucket("out"); err != nil {
		t.Fatal(err)
	}
	inner := gofakes3.New(backend).Server()
	var requests atomic.Int64
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if requests.Add(1)%n == 0 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		inner.ServeHTTP(w, r)
	}))
	t.Cleanup(service.Close)
	buckets := []s3.Bucket{
		{Pattern: "*", Endpoint: "http://127.0.0.1:1"}, // not writable: not the one
		{Pattern: "out", Endpoint: service.URL, Region: "us-east-1", PathStyle: true, AccessKey: "key", SecretKey: "secret", Writable: true},
	}
	p, err := publish.Config{Buckets: buckets}.Open("s3://out/results/here/")
	if err != nil {
		t.Fatal(err)
	}
	client, _, _, err := s3.Writable(buckets, "s3://out/")
	if err != nil {
		t.Fatal(err)
	}
	return p, client
}

func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		name, _ := filepath.Rel(dir, p)
		if e.Type()&fs.ModeSymlink != 0 {
			to, err := os.Readlink(p)
			found[name] = "→" + to
			return err
		}
		data, err := os.ReadFile(p)
		found[name] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// unpacked is what lies in a directory, with the files in CAR files behind these one's names and a !.
func unpacked(t *testing.T, dir string) map[string]string {
	t.Helper()
	found := tree(t, dir)
	for name := range found {
		if !strings.HasSuffix(name, ".car") {
			continue
		}
		delete(found, name)
		s, err := car.Opener([]source.Root{{Path: dir}})("car://" + dir + "/" + name)
		must(t, err)
		must(t, s.List(t.Context(), source.Scope{}, func(entries []sheaf.Entry) error {
			for _, e := range entries {
				if e.Kind != sheaf.EntryFile {
					continue
				}
				f, err := s.Open(t.Context(), e.Path, e.Identity())
				must(t, err)
				data, err := io.ReadAll(f)
				must(t, errors.Join(err, f.Close()))
				found[name+"!"+e.Path] = string(data)
			}
			return nil
		}))
		must(t, s.Close())
	}
	return found
}

// put writes a result where the root of a CAR file does not matter.
func put(ctx context.Context, p publish.Place, in publish.Input) error {
	if w, ok := p.(world); ok {
		p = w.Place
	}
	_, err := publish.Write(ctx, p, in)
	return err
}

func objects(t *testing.T, client *minio.Client, prefix string) map[string]string {
	t.Helper()
	found := map[string]string{}
	for o := range client.ListObjects(t.Context(), "out", minio.ListObjectsOptions{Prefix: prefix, Recursive: true}) {
		if o.Err != nil {
			t.Fatal(o.Err)
		}
		body, err := client.GetObject(t.Context(), "out", o.Key, minio.GetObjectOptions{})
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(body)
		if err != nil {
			t.Fatal(err)
		}
		found[strings.TrimPrefix(o.Key, prefix)] = string(data)
	}
	for u := range client.ListIncompleteUploads(t.Context(), "out", prefix, true) {
		if minio.ToErrorResponse(u.Err).Code == minio.NoSuchUpload {
			break
		}
		if u.Err != nil {
			t.Fatal(u.Err)
		}
		found["unfinished upload of "+u.Key] = ""
	}
	return found
}

// result is a merged result whose parts are held in memory.
type result struct {
	files []sheaf.File
	parts map[string]string // by partition and path
}

func (r *result) add(f sheaf.File, parts ...string) {
	if r.parts == nil {
		r.parts = map[string]string{}
	}
	f.Output, f.Mode = "o", 0o640
	for i, content := range parts {
		sum := sha256.Sum256([]byte(content))
		p := sheaf.Part{Partition: i, Attempt: 1, Node: "n", Size: int64(len(content)), SHA256: hex.EncodeToString(sum[:])}
		f.Parts, f.Size = append(f.Parts, p), f.Size+p.Size
		r.parts[fmt.Sprint(i, f.Path)] = content
	}
	r.files = append(r.files, f)
}

func (r *result) input(t *testing.T, attempt uint32) publish.Input {
	var manifest bytes.Buffer
	for _, f := range r.files {
		manifest.Write(append(f.AppendJSON(nil), '\n'))
	}
	return publish.Input{
		Run: "r", Job: "j", Generation: 1, Attempt: attempt, Result: fmt.Sprint("digest", attempt), Manifest: &manifest, Dir: t.TempDir(),
		Open: func(_ context.Context, f *sheaf.File, p sheaf.Part) (io.ReadCloser, error) {
			return io.NopCloser(strings.NewReader(r.parts[fmt.Sprint(p.Partition, f.Path)])), nil
		},
		Damaged: func(sheaf.Part, string) {},
	}
}

// whole is a result with everything in it: an empty file, parts joined, a link, a name that is no text, and a
// file that goes in parts.
func whole() *result {
	r := &result{}
	r.add(sheaf.File{Path: "empty"}, "")
	r.add(sheaf.File{Path: "joined.txt"}, "one\n", "", "three\n")
	r.add(sheaf.File{Path: "large.bin"}, strings.Repeat("0123456789abcdef", 1<<20), strings.Repeat("x", 3<<20))
	r.add(sheaf.File{Path: "latest", Link: "joined.txt"})
	r.add(sheaf.File{Path: "odd\xff\nname"}, "odd")
	for i := range 60 {
		r.add(sheaf.File{Path: fmt.Sprintf("sub/%03d.txt", i)}, fmt.Sprintf("file %d", i))
	}
	return r
}

// check holds what is published against the result.
func (r *result) check(t *testing.T, found map[string]string, attempt uint32) {
	t.Helper()
	var m publish.Manifest
	if err := json.Unmarshal([]byte(found["r/manifest.json"]), &m); err != nil {
		t.Fatalf("the manifest: %v", err)
	}
	list := found["r/"+m.List]
	if sum := sha256.Sum256([]byte(list)); m.ListSHA256 != hex.EncodeToString(sum[:]) || m.Attempt != attempt || int(m.Files) != len(r.files) {
		t.Errorf("the manifest is %+v", m)
	}
	named := map[string]bool{"r/manifest.json": true, "r/" + m.List: true, fmt.Sprintf("r/%d/result.json", attempt): true}
	lines := strings.Split(strings.TrimSuffix(list, "\n"), "\n")
	if len(lines) != len(r.files) {
		t.Fatalf("%d lines for %d files", len(lines), len(r.files))
	}
	for i, f := range r.files {
		var x publish.File
		if err := json.Unmarshal([]byte(lines[i]), &x); err != nil {
			t.Fatal(err)
		}
		if x.B64 != "" {
			b, _ := base64.StdEncoding.DecodeString(x.B64)
			x.Path = string(b)
		}
		if x.Path != f.Path || x.Output != "o" || x.Size != f.Size || x.Mode != f.Mode || x.Link != f.Link {
			t.Errorf("line %d is %+v for %q", i, x, f.Path)
		}
		if m.Car != "" {
			x.Name = m.Car + "!o/" + f.Path
		}
		if f.Link != "" {
			named["r/"+x.Name] = true // in a CAR file it is read as what it leads to
			continue
		}
		var want strings.Builder
		for _, p := range f.Parts {
			want.WriteString(r.parts[fmt.Sprint(p.Partition, f.Path)])
		}
		sum := sha256.Sum256([]byte(want.String()))
		if got, there := found["r/"+x.Name]; !there || got != want.String() || x.SHA256 != hex.EncodeToString(sum[:]) {
			t.Errorf("%q is published as %d bytes of digest %s, not %d", f.Path, len(got), x.SHA256, want.Len())
		}
		named["r/"+x.Name] = true
	}
	for name, content := range found {
		if !named[name] && !strings.HasPrefix(content, "→") {
			t.Errorf("%q was left behind", name)
		}
	}
}

func names(found map[string]string) (all []string) {
	for name := range found {
		all = append(all, name)
	}
	slices.Sort(all)
	return all
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestPublish: nothing of a result is there before its manifest, and nothing else after; whoever puts
// the manifest may do it again.
func TestPublish(t *testing.T) {
	for kind, w := range worlds(t) {
		t.Run(kind, func(t *testing.T) {
			r, ctx := whole(), t.Context()
			// An attempt that was killed half-way, as an unfinished upload and some objects.
			must(t, w.Put(ctx, publish.Object{Name: "r/1/outputs/o/half", Size: 1}, func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("x")), nil }))
			must(t, put(ctx, w, r.input(t, 2)))
			found := w.read(t)
			if found["r/manifest.json"] != "" {
				t.Error("a manifest is there before it is sealed")
			}
			if _, there := found["r/1/outputs/o/half"]; there {
				t.Error("what the killed attempt left is still there")
			}
			if err := publish.Finish(ctx, w, "r", 2, "another"); sheaf.ClassOf(err) != sheaf.Conflict {
				t.Errorf("a result that is not the sealed one: %v", err)
			}
			for range 2 {
				must(t, publish.Finish(ctx, w, "r", 2, "digest2"))
				r.check(t, w.read(t), 2)
			}
			// A late attempt writes and gives up; it takes nothing with it.
			late := &result{}
			late.add(sheaf.File{Path: "late"}, "late")
			must(t, put(ctx, w, late.input(t, 1)))
			must(t, publish.Discard(ctx, w, "r", 1))
			must(t, publish.Discard(ctx, w, "r", 2))
			r.check(t, w.read(t), 2)
			// A later generation's result takes its place, and nothing of an earlier one does.
			next := late.input(t, 3)
			next.Generation = 2
			must(t, put(ctx, w, next))
			must(t, publish.Finish(ctx, w, "r", 3, "digest3"))
			late.check(t, w.read(t), 3)
			must(t, put(ctx, w, late.input(t, 2)))
			if err := publish.Finish(ctx, w, "r", 2, "digest2"); !errors.Is(err, publish.ErrStale) {
				t.Errorf("an earlier generation's result: %v", err)
			}
			must(t, publish.Sweep(ctx, w, "r"))
			late.check(t, w.read(t), 3)
		})
	}
}

// TestSweepWithoutManifest: a run that ends without a published result leaves nothing, and its
// neighbours stay.
func TestSweepWithoutManifest(t *testing.T) {
	for kind, w := range worlds(t) {
		t.Run(kind, func(t *testing.T) {
			r := &result{}
			r.add(sheaf.File{Path: "a"}, "a")
			must(t, put(t.Context(), w, r.input(t, 4)))
			must(t, w.Put(t.Context(), publish.Object{Name: "r2/x", Size: 1}, func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("x")), nil }))
			must(t, publish.Sweep(t.Context(), w, "r"))
			if got := names(w.read(t)); !slices.Equal(got, []string{"r2/x"}) {
				t.Errorf("left: %q", got)
			}
			must(t, publish.Sweep(t.Context(), w, "r"))
		})
	}
}

// TestUnfinishedUploads: an upload in parts that a killed client never ended is ended by the next attempt.
func TestUnfinishedUploads(t *testing.T) {
	p, client := bucket(t, 1<<40)
	core := minio.Core{Client: client}
	id, err := core.NewMultipartUpload(t.Context(), "out", "results/here/r/1/outputs/o/huge", minio.PutObjectOptions{})
	must(t, err)
	_, err = core.PutObjectPart(t.Context(), "out", "results/here/r/1/outputs/o/huge", id, 1, strings.NewReader("part"), 4, minio.PutObjectPartOptions{})
	must(t, err)
	if len(objects(t, client, "results/here/")) != 1 {
		t.Fatal("there is no unfinished upload")
	}
	r := &result{}
	r.add(sheaf.File{Path: "a"}, "a")
	must(t, put(t.Context(), p, r.input(t, 2)))
	must(t, publish.Finish(t.Context(), p, "r", 2, "digest2"))
	r.check(t, objects(t, client, "results/here/"), 2)
}

// TestUploadOfThePublished: an upload of the attempt that is published, which it was not told had begun, is ended too.
func TestUploadOfThePublished(t *testing.T) {
	p, client := bucket(t, 1<<40)
	r := &result{}
	r.add(sheaf.File{Path: "a"}, "a")
	must(t, put(t.Context(), p, r.input(t, 1)))
	_, err := minio.Core{Client: client}.NewMultipartUpload(t.Context(), "out", "results/here/r/1/outputs/o/a", minio.PutObjectOptions{})
	must(t, err)
	must(t, publish.Finish(t.Context(), p, "r", 1, "digest1"))
	r.check(t, objects(t, client, "results/here/"), 1)
}

// standing stops a place before a manifest is put, as where a process stands still.
type standing struct {
	publish.Place
	meanwhile func()
}

func (s *standing) Replace(ctx context.Context, name string, data []byte, version string) error {
	s.meanwhile()
	return s.Place.Replace(ctx, name, data, version)
}

// TestLateFinish: whoever is about to put the manifest of a sealed attempt stands still while the run fails, is retried, and
// the next generation's merge writes. Whichever manifest stands, all that it names is there.
func TestLateFinish(t *testing.T) {
	for kind, w := range worlds(t) {
		t.Run(kind, func(t *testing.T) {
			ctx, first, second := t.Context(), &result{}, &result{}
			first.add(sheaf.File{Path: "a"}, "of the first generation")
			second.add(sheaf.File{Path: "a"}, "of the second")
			must(t, put(ctx, w, first.input(t, 1)))
			late := &standing{w, sync.OnceFunc(func() {
				next := second.input(t, 2)
				next.Generation = 2
				must(t, put(ctx, w, next))
			})}
			must(t, publish.Finish(ctx, late, "r", 1, "digest1"))
			found := w.read(t)
			for name := range found {
				if strings.HasPrefix(name, "r/2/") {
					delete(found, name)
				}
			}
			first.check(t, found, 1)
			must(t, publish.Finish(ctx, w, "r", 2, "digest2"))
			second.check(t, w.read(t), 2)
		})
	}
}

// TestReplace: of two that put on what they saw one wins, and the other is told.
func TestReplace(t *testing.T) {
	for kind, w := range worlds(t) {
		t.Run(kind, func(t *testing.T) {
			ctx := t.Context()
			if _, _, err := w.Get(ctx, "m"); sheaf.ClassOf(err) != sheaf.NotFound {
				t.Fatalf("nothing is there: %v", err)
			}
			must(t, w.Replace(ctx, "m", []byte("one"), ""))
			if err := w.Replace(ctx, "m", []byte("two"), ""); !errors.Is(err, publish.ErrStands) {
				t.Errorf("over what stands there: %v", err)
			}
			_, version, err := w.Get(ctx, "m")
			must(t, err)
			must(t, w.Replace(ctx, "m", []byte("three"), version))
			if err := w.Replace(ctx, "m", []byte("four"), version); !errors.Is(err, publish.ErrStands) {
				t.Errorf("by an old version: %v", err)
			}
			if data, _, err := w.Get(ctx, "m"); err != nil || string(data) != "three" {
				t.Errorf("%q, %v", data, err)
			}
		})
	}
}

// TestDamagedPart: bytes that are not those that were committed are published by no name.
func TestDamagedPart(t *testing.T) {
	for kind, w := range worlds(t) {
		t.Run(kind, func(t *testing.T) {
			r := &result{}
			r.add(sheaf.File{Path: "a"}, "good")
			in := r.input(t, 1)
			in.Open = func(context.Context, *sheaf.File, sheaf.Part) (io.ReadCloser, error) {
				return io.NopCloser(strings.NewReader("evil")), nil
			}
			ctx, cancel := context.WithCancel(t.Context())
			told := ""
			in.Damaged = func(p sheaf.Part, reason string) {
				told = reason
				cancel() // as the servers do: the output is made again, and this attempt is over
			}
			if err := put(ctx, w, in); err == nil {
				t.Error("it was written")
			}
			if !strings.Contains(told, "digest") {
				t.Errorf("told: %q", told)
			}
			must(t, publish.Discard(t.Context(), w, "r", 1))
			if left := names(w.read(t)); len(left) > 0 {
				t.Errorf("left: %q", left)
			}
		})
	}
}

// TestOpenRefuses: only what the configuration makes writable, by links neither.
func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, "in"), 0o755))
	must(t, os.Symlink("/etc", filepath.Join(dir, "in", "out")))
	conf := publish.Config{Dirs: []string{filepath.Join(dir, "in")}, Buckets: []s3.Bucket{{Pattern: "read", Anonymous: true}}}
	for url, class := range map[string]sheaf.Class{
		"file://" + dir + "/other":    sheaf.Denied,
		"file://" + dir + "/in/../x":  sheaf.Denied,
		"file://" + dir + "/in/out/x": sheaf.Unavailable,
		"file://elsewhere/x":          sheaf.Invalid,
		"s3://read/x":                 sheaf.Denied,
		"https://host/x":              sheaf.Unsupported,
		"car://" + dir + "/other":     sheaf.Denied,
		"car://" + dir + "/in/out/x":  sheaf.Unavailable,
		"car://elsewhere/x":           sheaf.Invalid,
	} {
		if p, err := conf.Open(url); err == nil || sheaf.ClassOf(err) != class {
			t.Errorf("%s: %v, %v", url, p, err)
		}
	}
}
