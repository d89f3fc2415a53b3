package consensus_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sheaf-run/agent/server/consensus"
)

// written makes a data directory with a log of some entries, and gives its log file.
func written(t *testing.T, n int) (dir, log string, want [][]byte) {
	t.Helper()
	dir = t.TempDir()
	m := start(t, options{dir: dir}).lead(t)
	want = commands(0, n)
	for _, c := range want {
		m.apply(t, string(c))
	}
	if err := m.stop(); err != nil {
		t.Fatal(err)
	}
	return dir, filepath.Join(dir, "raft", "log.db"), want
}

// reopen starts a server on dir and gives its commands, or the error it refused with.
func reopen(t *testing.T, dir string) ([][]byte, error) {
	t.Helper()
	m := start(t, options{dir: dir})
	select {
	case <-m.leads:
	case err := <-m.done:
		m.done <- nil
		return nil, err
	case <-time.After(patience):
		t.Fatal("the server neither leads nor refuses")
	}
	got := m.ledger.all()
	return got, m.stop()
}

// used finds the bytes of b that are not zero, where a flip can matter.
func used(b []byte) []int {
	var at []int
	for i, c := range b {
		if c != 0 {
			at = append(at, i)
		}
	}
	return at
}

// A flipped byte anywhere in the log's file must be named or make no difference
// at all: never a crash, never other or fewer commands.
func TestFlippedBytesOfTheLog(t *testing.T) {
	dir, log, want := written(t, 120)
	sound, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	page := os.Getpagesize()
	rng := rand.New(rand.NewPCG(1, 2))
	places := used(sound)
	at := []int{0, 8, 10, 12, 16, 20, 40, 60, 72, page, page + 16, page + 60} // the meta pages
	for range 80 {
		at = append(at, places[rng.IntN(len(places))])
	}
	for p := 2; p*page < len(sound); p++ { // each page's header and first elements
		for _, off := range []int{0, 8, 10, 12, 16, 20, 24, 28} {
			if i := p*page + off; sound[i] != 0 || p < 6 {
				at = append(at, i)
			}
		}
		if len(at) > 200 {
			break
		}
	}
	named := 0
	for _, i := range at {
		broken := bytes.Clone(sound)
		broken[i] ^= 1 << rng.IntN(8)
		if err := os.WriteFile(log, broken, 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := reopen(t, dir)
		switch {
		case errors.Is(err, consensus.ErrDamaged):
			named++
		case err != nil:
			t.Fatalf("byte %d flipped: %v, want a damaged store", i, err)
		case len(got) < len(want) || fmt.Sprint(got[:len(want)]) != fmt.Sprint(want):
			t.Fatalf("byte %d flipped: %d commands came back instead of %d, and no error", i, len(got), len(want))
		}
	}
	if named < 50 {
		t.Errorf("only %d of %d flips were noticed: the test flips bytes that nothing uses", named, len(at))
	}
}

func TestTruncatedLog(t *testing.T) {
	dir, log, _ := written(t, 120)
	sound, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	end := used(sound)[len(used(sound))-1]
	for _, n := range []int{0, 1, 100, 4096, 4097, 8192, 16384, end / 2, end - 4096} {
		if err := os.WriteFile(log, sound[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := reopen(t, dir); !errors.Is(err, consensus.ErrDamaged) {
			t.Errorf("cut to %d bytes: %d commands and %v, want a damaged store", n, len(got), err)
		}
	}
	if err := os.Remove(log); err != nil {
		t.Fatal(err)
	}
	if _, err := reopen(t, dir); !errors.Is(err, consensus.ErrDamaged) {
		t.Errorf("removed: %v", err)
	}
}

// A damaged newest snapshot must be named, not passed over for the older one
// behind which the log is gone.
func TestDamagedSnapshot(t *testing.T) {
	dir := t.TempDir()
	m := start(t, options{dir: dir}).lead(t)
	big := string(bytes.Repeat([]byte("x"), 60<<10))
	var found []string
	applied := 0
	for len(found) < 2 { // how many it takes depends on when the first one is begun
		if applied == 5000 {
			t.Fatalf("%d commands of 60 kB made %d snapshots", applied, len(found))
		}
		m.apply(t, big)
		applied++
		var err error
		if found, err = filepath.Glob(filepath.Join(dir, "raft", "snapshots", "*.snap")); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.stop(); err != nil {
		t.Fatal(err)
	}
	newest := found[1]
	// One that is due by what was appended during the last is one too many, and the log reaches back behind both.
	const between = 16 << 20 / (60 << 10)
	if a, b := indexOf(t, found[0]), indexOf(t, newest); b-a < between {
		t.Fatalf("the second snapshot was taken %d entries after the first; %d of 60 kB call for one", b-a, between)
	}
	sound, err := os.ReadFile(newest)
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range []int{0, 22, 24, 30, 200, len(sound) / 2, len(sound) - 1} {
		broken := bytes.Clone(sound)
		broken[i] ^= 4
		if err := os.WriteFile(newest, broken, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := reopen(t, dir); !errors.Is(err, consensus.ErrDamaged) && !errors.Is(err, consensus.ErrForeign) {
			t.Errorf("byte %d flipped: %v", i, err)
		}
	}
	later := bytes.Replace(sound, []byte("sheaf-raft-snapshot 1"), []byte("sheaf-raft-snapshot 2"), 1)
	if err := os.WriteFile(newest, later, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := reopen(t, dir); !errors.Is(err, consensus.ErrForeign) {
		t.Errorf("of a newer version: %v", err)
	}
	if after, err := os.ReadFile(newest); err != nil || !bytes.Equal(after, later) {
		t.Errorf("a newer version's snapshot was touched: %v", err)
	}
	for _, n := range []int{0, 10, 40, len(sound) - 1} {
		if err := os.WriteFile(newest, sound[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := reopen(t, dir); !errors.Is(err, consensus.ErrDamaged) {
			t.Errorf("cut to %d bytes: %v", n, err)
		}
	}
	newer := bytes.Replace(sound, []byte("snapshot 1\n"), []byte("snapshot 2\n"), 1)
	if err := os.WriteFile(newest, newer, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := reopen(t, dir); !errors.Is(err, consensus.ErrForeign) || errors.Is(err, consensus.ErrDamaged) {
		t.Errorf("of a newer version: %v", err)
	}
	if after, err := os.ReadFile(newest); err != nil || !bytes.Equal(after, newer) || bytes.Equal(newer, sound) {
		t.Errorf("the snapshot of a newer version was changed: %v", err)
	}
	if err := os.Remove(newest); err != nil {
		t.Fatal(err)
	}
	if _, err := reopen(t, dir); !errors.Is(err, consensus.ErrDamaged) {
		t.Errorf("removed: %v", err)
	}
	if err := os.WriteFile(newest, sound, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := reopen(t, dir); err != nil || len(got) != applied {
		t.Errorf("made whole again: %d commands, %v", len(got), err)
	}
}

// indexOf is the index up to which a snapshot goes, by its file's name.
func indexOf(t *testing.T, path string) (index int) {
	t.Helper()
	if _, err := fmt.Sscanf(filepath.Base(path), "%d-", &index); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return index
}
