package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

func key(name string, size int64) Key { return KeyOf("s3://b", "etag:"+name, size) }

// content fetches size bytes.
func content(size int64) Fetch {
	return func(_ context.Context, w io.Writer) error {
		_, err := io.WriteString(w, strings.Repeat("x", int(size)))
		return err
	}
}

func never(context.Context, io.Writer) error { return errors.New("fetched again") }

func (c *Cache) mustGet(t *testing.T, k Key, f Fetch) (string, func()) {
	t.Helper()
	path, release, err := c.Get(t.Context(), k, f)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Size() != k.Size || info.Mode().Perm() != 0o444 {
		t.Errorf("%v: %v, %v", k, info, err)
	}
	return path, release
}

func TestLeastRecentlyUsedGoesFirst(t *testing.T) {
	dir := t.TempDir()
	c, err := Open(dir, 30)
	if err != nil {
		t.Fatal(err)
	}
	_, used := c.mustGet(t, key("used", 10), content(10))
	for _, name := range []string{"a", "b", "a", "c"} {
		_, release := c.mustGet(t, key(name, 10), content(10))
		release()
		release() // the second time is nothing
	}
	_, release := c.mustGet(t, key("a", 10), never)
	release()
	if _, _, err := c.Get(t.Context(), key("b", 10), never); err == nil {
		t.Error("b is still there")
	}
	_, release = c.mustGet(t, key("used", 10), never)
	release()
	if s := c.Stats(); s.Files != 3 || s.Bytes != 30 || s.Evicted != 1 {
		t.Errorf("%+v", s)
	}
	// What is in use stays beyond the limit, and goes when it is given back.
	_, big := c.mustGet(t, key("big", 100), content(100))
	_, again := c.mustGet(t, key("used", 10), never)
	used()
	again()
	big()
	if s := c.Stats(); s.Bytes > 30 {
		t.Errorf("%+v over its limit with nothing in use", s)
	}
}

func TestShrink(t *testing.T) {
	c, err := Open(t.TempDir(), 1000)
	if err != nil {
		t.Fatal(err)
	}
	_, used := c.mustGet(t, key("used", 10), content(10))
	defer used()
	for _, name := range []string{"a", "b", "c"} {
		_, release := c.mustGet(t, key(name, 10), content(10))
		release()
	}
	for _, step := range []struct{ bytes, gained, left int64 }{{0, 0, 40}, {11, 20, 20}, {1000, 10, 10}} {
		gained, err := c.Shrink(step.bytes)
		if err != nil || gained != step.gained || c.Stats().Bytes != step.left {
			t.Errorf("shrunk by %d: gained %d, %v, %d are left; want %d and %d", step.bytes, gained, err, c.Stats().Bytes, step.gained, step.left)
		}
	}
	c.mustGet(t, key("used", 10), never)
}

func TestOneFetchForAll(t *testing.T) {
	c, err := Open(t.TempDir(), 1000)
	if err != nil {
		t.Fatal(err)
	}
	var fetches atomic.Int32
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			_, release, err := c.Get(t.Context(), key("x", 5), func(ctx context.Context, w io.Writer) error {
				fetches.Add(1)
				return content(5)(ctx, w)
			})
			if err != nil {
				t.Error(err)
				return
			}
			release()
		})
	}
	all.Wait()
	if n := fetches.Load(); n != 1 {
		t.Errorf("%d fetches", n)
	}
}

// TestAnotherTakesOver: who waits for a fetch that was given up fetches itself.
func TestAnotherTakesOver(t *testing.T) {
	c, err := Open(t.TempDir(), 1000)
	if err != nil {
		t.Fatal(err)
	}
	first, cancel := context.WithCancel(t.Context())
	began := make(chan struct{})
	failed := make(chan error)
	go func() {
		_, _, err := c.Get(first, key("x", 5), func(ctx context.Context, _ io.Writer) error {
			close(began)
			<-ctx.Done()
			return ctx.Err()
		})
		failed <- err
	}()
	<-began
	second := make(chan error)
	go func() {
		_, release, err := c.Get(t.Context(), key("x", 5), content(5))
		if err == nil {
			release()
		}
		second <- err
	}()
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Errorf("the first: %v", err)
	}
	if err := <-second; err != nil {
		t.Errorf("the second: %v", err)
	}
}

func TestWrongSizesAreNotKept(t *testing.T) {
	dir := t.TempDir()
	c, err := Open(dir, 1000)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.Get(t.Context(), key("short", 10), content(9)); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("too short: %v", err)
	}
	if _, _, err := c.Get(t.Context(), key("long", 10), content(11)); !errors.Is(err, errLonger) {
		t.Errorf("too long: %v", err)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestOpenTakesOverWhatIsWhole(t *testing.T) {
	dir := t.TempDir()
	c, err := Open(dir, 1000)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		_, release := c.mustGet(t, key(fmt.Sprint(i), 10), content(10))
		release()
	}
	cut, release := c.mustGet(t, key("cut", 10), content(10))
	release()
	if err := os.Truncate(cut, 4); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "x"+part), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if c, err = Open(dir, 30); err != nil {
		t.Fatal(err)
	}
	if s := c.Stats(); s.Files != 3 || s.Bytes != 30 {
		t.Errorf("%+v", s)
	}
	if left, _ := os.ReadDir(dir); len(left) != 3 {
		t.Errorf("left: %v", left)
	}
}

// What is held of each origin is known, also after a restart and as files go.
func TestHeld(t *testing.T) {
	dir := t.TempDir()
	c, err := Open(dir, 100)
	if err != nil {
		t.Fatal(err)
	}
	for i, origin := range []string{"aa", "bb", "aa", ""} {
		k := key(fmt.Sprint(i), int64(10*(i+1)))
		k.Origin = origin
		_, release := c.mustGet(t, k, content(k.Size))
		release()
	}
	if got := fmt.Sprint(c.Held()); got != "map[aa:40 bb:20]" {
		t.Errorf("held %s", got)
	}
	if _, err := c.Shrink(1); err != nil { // the oldest, of 10 bytes
		t.Fatal(err)
	}
	for range 2 {
		if got := fmt.Sprint(c.Held()); got != "map[aa:30 bb:20]" {
			t.Errorf("held %s", got)
		}
		if c, err = Open(dir, 100); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.Shrink(100); err != nil || len(c.Held()) != 0 {
		t.Errorf("%v, %v", c.Held(), err)
	}
}
