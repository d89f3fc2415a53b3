package gossip_test

import (
	"bytes"
	"encoding/base64"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sheaf-run/agent/internal/gossip"
	"github.com/sheaf-run/agent/sheaf"
)

func newKey(t *testing.T) []byte {
	t.Helper()
	key, err := gossip.ParseKey(gossip.NewKey())
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func must(t *testing.T, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// keys says which keys a pool has, the one it writes with first.
func keys(p *gossip.Pool) string {
	ids, primary := p.KeyIDs()
	ids = slices.DeleteFunc(ids, func(id string) bool { return id == primary })
	return strings.Join(append([]string{primary}, ids...), " ")
}

// TestRotation changes the key of two members step by step, and restarts one in between.
func TestRotation(t *testing.T) {
	older, newer := newKey(t), newKey(t)
	oldID, newID := gossip.KeyID(older), gossip.KeyID(newer)
	file := filepath.Join(t.TempDir(), "gossip", "keyring.json")
	a := start(t, gossip.Config{Self: gossip.Member{Name: "a", Region: "eu"}, Key: older})
	conf := gossip.Config{Self: gossip.Member{Name: "b", Region: "eu"}, Key: older, KeyringFile: file, Join: []string{a.Address()}}
	b := start(t, conf)
	await(t, b, "b joins", func(m []gossip.Member) bool { return len(m) == 2 })

	for _, p := range []running{a, b} {
		must(t, "install", p.InstallKey(newer))
		must(t, "install again", p.InstallKey(newer))
		if sheaf.ClassOf(p.RemoveKey(oldID)) != sheaf.Conflict {
			t.Error("the key in use was removed")
		}
		if sheaf.ClassOf(p.UseKey("ffffffffffff")) != sheaf.NotFound {
			t.Error("a key that nobody has was used")
		}
		must(t, "use", p.UseKey(newID))
		if got := keys(p.Pool); got != newID+" "+oldID {
			t.Errorf("keys after use: %s", got)
		}
	}

	// The file goes before the configuration, which still has the old key.
	b.stop()
	await(t, a, "b leaves", func(m []gossip.Member) bool { return len(m) == 1 })
	must(t, "remove", a.RemoveKey(oldID))
	must(t, "remove again", a.RemoveKey(oldID))
	b = start(t, conf)
	await(t, b, "b joins with the new key", func(m []gossip.Member) bool { return len(m) == 2 })
	must(t, "remove", b.RemoveKey(oldID))
	if got := keys(b.Pool); got != newID {
		t.Errorf("keys at the end: %s", got)
	}
	info, err := os.Stat(file)
	must(t, "stat", err)
	text, err := os.ReadFile(file)
	must(t, "read", err)
	if info.Mode().Perm() != 0o600 || !strings.Contains(string(text), base64.StdEncoding.EncodeToString(newer)) || strings.Contains(string(text), base64.StdEncoding.EncodeToString(older)) {
		t.Errorf("the keyring is kept as %v\n%s", info.Mode(), text)
	}
}

// A change that cannot be kept is not made: after a restart the agent would be shut out.
func TestKeyringThatCannotBeKept(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "gossip")
	first, second, third := newKey(t), newKey(t), newKey(t)
	p, err := gossip.New(gossip.Config{
		Self: gossip.Member{Name: "a"}, Bind: "127.0.0.1:0", Key: first, Logger: slog.New(slog.DiscardHandler), KeyringFile: filepath.Join(dir, "keyring.json"),
	})
	must(t, "new", err)
	must(t, "install", p.InstallKey(second))
	before := keys(p)
	// Nothing can be written below a file.
	must(t, "remove", os.RemoveAll(dir))
	must(t, "write", os.WriteFile(dir, nil, 0o600))
	for what, change := range map[string]func() error{
		"install": func() error { return p.InstallKey(third) },
		"use":     func() error { return p.UseKey(gossip.KeyID(second)) },
		"remove":  func() error { return p.RemoveKey(gossip.KeyID(second)) },
	} {
		if err := change(); err == nil || keys(p) != before {
			t.Errorf("%s: %v; the keys are %s, and were %s", what, err, keys(p), before)
		}
	}
}

func TestKeyringRefuses(t *testing.T) {
	quiet := slog.New(slog.DiscardHandler)
	dir := t.TempDir()
	for name, text := range map[string]string{
		"no JSON": "key", "no list": `{"a":1}`, "empty": `[]`, "no base64": `["%%"]`, "short": `["c2hvcnQ="]`,
		"too many": `["` + strings.Repeat(gossip.NewKey()+`","`, 9) + `"]`,
	} {
		file := filepath.Join(dir, "keyring.json")
		must(t, "write", os.WriteFile(file, []byte(text), 0o600))
		_, err := gossip.New(gossip.Config{Self: gossip.Member{Name: "a"}, Bind: "127.0.0.1:0", Key: newKey(t), KeyringFile: file, Logger: quiet})
		if sheaf.ClassOf(err) != sheaf.Invalid || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: %v", name, err)
		}
	}
	open, err := gossip.New(gossip.Config{Self: gossip.Member{Name: "a"}, Bind: "127.0.0.1:0", Logger: quiet})
	must(t, "new", err)
	if sheaf.ClassOf(open.InstallKey(newKey(t))) != sheaf.Conflict {
		t.Error("a key was installed where nothing is encrypted")
	}
	full, err := gossip.New(gossip.Config{Self: gossip.Member{Name: "a"}, Bind: "127.0.0.1:0", Key: newKey(t), Logger: quiet})
	must(t, "new", err)
	for err == nil {
		err = full.InstallKey(newKey(t))
	}
	if ids, _ := full.KeyIDs(); len(ids) != 8 {
		t.Errorf("%d keys fit: %v", len(ids), err)
	}
	for _, text := range []string{"", "short", "c2hvcnQ=", strings.Repeat("A", 48), "%%%%"} {
		if _, err := gossip.ParseKey(text); err == nil {
			t.Errorf("%q passed for a key", text)
		}
	}
}

// heard keeps what is logged and wakes who waits for it.
type heard struct {
	mu   sync.Mutex
	text bytes.Buffer
	more chan struct{}
}

func (h *heard) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	select {
	case h.more <- struct{}{}:
	default:
	}
	return h.text.Write(p)
}

func (h *heard) has(s string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return strings.Contains(h.text.String(), s)
}

func TestJoinSaysWhatIsWrong(t *testing.T) {
	secured := start(t, gossip.Config{Self: gossip.Member{Name: "s", Region: "eu"}, Key: newKey(t)})
	open := start(t, gossip.Config{Self: gossip.Member{Name: "o", Region: "eu"}})
	for _, c := range []struct {
		name, address, says string
		key                 []byte
	}{
		{"wrong", secured.Address(), "the gossip key is not the one that the pool uses", newKey(t)},
		{"none", secured.Address(), "the pool is encrypted, and this agent has no gossip key", nil},
		{"needless", open.Address(), "this agent has a gossip key, and the pool is not encrypted", newKey(t)},
		{"o", open.Address(), "is called o as well", nil},
	} {
		log := &heard{more: make(chan struct{}, 1)}
		startLogged(t, gossip.Config{
			Self: gossip.Member{Name: c.name, Region: "eu"}, Key: c.key, Join: []string{c.address}, Logger: slog.New(slog.NewTextHandler(log, nil)),
		})
		deadline := time.After(found)
		for !log.has(c.says) {
			select {
			case <-log.more:
			case <-deadline:
				t.Fatalf("%s: the join says %s", c.name, log.text.String())
			}
		}
	}
}
