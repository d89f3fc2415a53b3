package simtest

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"path"
	"strconv"
	"strings"

	"github.com/sheaf-run/agent/data/publish"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/sheaf"
)

// bucket is where runs publish, and the book of what may be there. After every change it is what a reader
// may come upon.
type bucket struct {
	w       *world
	objects map[string]object
	uploads map[int]upload
	changes int
	sealed  map[string]string // digests, by run and attempt, of the results that the log has sealed to be published
	sweeps  int               // of deleted runs, that are not through
	silent  bool              // it does nothing of what it is asked
}

// object is what lies under a name, and who put it there.
type object struct {
	data    string
	version string
	by      *client
	boot    int
}

// upload was begun and is not completed.
type upload struct {
	name string
	by   *deed
}

func newBucket(w *world) *bucket {
	return &bucket{w: w, objects: map[string]object{}, uploads: map[int]upload{}, sealed: map[string]string{}}
}

func (b *bucket) begin(name string, by *deed) int {
	b.changes++
	b.uploads[b.changes] = upload{name, by}
	return b.changes
}

func (b *bucket) complete(n int, data string) error {
	u, ok := b.uploads[n]
	if !ok { // it was ended, or completed already
		return errUnanswered
	}
	delete(b.uploads, n)
	b.put(u.name, data, u.by)
	return nil
}

func (b *bucket) put(name, data string, by *deed) {
	b.changes++
	b.objects[name] = object{data, strconv.Itoa(b.changes), by.c, by.boot}
	b.look(name)
}

func (b *bucket) remove(name string) {
	delete(b.objects, name)
	b.look(name)
}

// replace puts a manifest: of a result that is sealed, and never over a later one.
func (b *bucket) replace(name, data, version string, by *deed) error {
	stands := b.objects[name]
	if stands.version != version {
		return publish.ErrStands
	}
	m := parseManifest(data)
	if was := parseManifest(stands.data); was.Generation > m.Generation || was.Generation == m.Generation && was.Attempt >= m.Attempt {
		b.w.fail("the manifest of %s goes from %+v to %+v", m.Run, was, m)
	}
	if b.sealed[attemptOf(string(m.Run), m.Attempt)] != m.Result {
		b.w.fail("the manifest of %s is put, which no seal has made good: %+v", m.Run, m)
	}
	b.put(name, data, by)
	b.w.out.Published++
	return nil
}

func parseManifest(data string) (m publish.Manifest) {
	if data != "" {
		if err := json.Unmarshal([]byte(data), &m); err != nil {
			panic(err)
		}
	}
	return m
}

func attemptOf(run string, attempt uint32) string { return fmt.Sprintf("%s/%d", run, attempt) }

// published is the manifest of a run, if there is one.
func (b *bucket) published(run string) (m publish.Manifest, ok bool) {
	x, ok := b.objects[run+"/"+publish.ManifestName]
	return parseManifest(x.data), ok
}

// look reads what is published of the run that an object is of: all that its manifest names is there, whole.
func (b *bucket) look(name string) {
	run, _, _ := strings.Cut(name, "/")
	m, ok := b.published(run)
	if !ok {
		return
	}
	list, ok := b.objects[run+"/"+m.List]
	if !ok || digest(list.data) != m.ListSHA256 || !strings.HasPrefix(m.List, strconv.Itoa(int(m.Attempt))+"/") {
		b.w.fail("after a change of %s the manifest of %s names a list that is not there: %+v", name, run, m)
	}
	var f publish.File
	if err := json.Unmarshal([]byte(list.data), &f); err != nil {
		b.w.fail("the list of %s is %q: %v", run, list.data, err)
	}
	if file, ok := b.objects[run+"/"+f.Name]; !ok || digest(file.data) != f.SHA256 || file.data != content(run, m.Attempt, m.Result) {
		b.w.fail("after a change of %s a file of the result of %s is %q: %+v of %+v", name, run, file.data, f, m)
	}
}

// content is the one file that an attempt publishes.
func content(run string, attempt uint32, result string) string {
	return fmt.Sprintf("%s of %s by attempt %d\n", result, run, attempt)
}

func digest(data string) string {
	sum := sha256.Sum256([]byte(data))
	return hex.EncodeToString(sum[:])
}

// compare: what the log calls published can be read.
func (b *bucket) compare(run *state.Run) {
	if _, ok := b.published(string(run.ID)); !ok && run.Result.Published {
		b.w.fail("run %s is published, and there is nothing", run.ID)
	}
	if run.Status == sheaf.RunSucceeded && run.Job.Publish != nil && run.Result.Sealed && !run.Result.Published {
		b.w.fail("run %s has succeeded unpublished", run.ID)
	}
}

// sweep deletes what merges of a deleted run have left, by one client or another, until it is done.
func (b *bucket) sweep(run sheaf.RunID) {
	w, done := b.w, false
	b.sweeps++
	var try func()
	try = func() {
		if done {
			return
		}
		w.after(w.between(2000, 4000), try)
		c := w.anyone()
		if !c.alive || c.cutOff {
			return
		}
		c.do(nil, sweeping(run), func(err error) {
			if err == nil && !done {
				done = true
				b.sweeps--
			}
		})
	}
	try()
}

// final: beside what manifests name lies only what goes with its run, or what a client wrote for a deleted run
// that was cut off meanwhile and crashed before it could clean up.
func (b *bucket) final() {
	snap := b.w.snap()
	left := func(name, what string, by *client, boot int) {
		run, rest, _ := strings.Cut(name, "/")
		if m, ok := b.published(run); ok && (rest == publish.ManifestName || what == "" && strings.HasPrefix(rest, strconv.Itoa(int(m.Attempt))+"/")) {
			return
		}
		switch r := snap.Run(sheaf.RunID(run)); {
		case r != nil && r.Unpublished() == "":
			b.w.fail("%s%s is left, and nobody will delete it", what, path.Clean(name))
		case r == nil && by.boot == boot:
			b.w.fail("%s%s is left of a run that is deleted", what, name)
		}
	}
	for name, x := range b.objects {
		left(name, "", x.by, x.boot)
	}
	for _, u := range b.uploads {
		left(u.name, "an upload of ", u.by.c, u.by.boot)
	}
}
