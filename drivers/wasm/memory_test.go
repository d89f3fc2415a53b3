package wasm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/sheaf-run/agent/sheaf"
)

// WASM runtimes that are not closed leak; here neither worker nor driver may
// grow with the number of executions.
func TestMemoryStaysFlat(t *testing.T) {
	s := newStand(t, Options{Lanes: 1})
	touch := s.start(guest{memory: [2]byte{64, 64}, body: []byte{ // writes to its last page
		0x41, 0x80, 0x80, 0xfc, 0x01, 0x41, 1, 0x36, 2, 0,
	}}.bytes())
	batch := func(n int) uint64 {
		var wait []string
		for range n {
			start := s.again(touch)
			wait = append(wait, start.Execution)
			s.Start(start)
			if len(wait) == 50 {
				for _, id := range wait {
					if x := s.Wait(id).Exited; x.ExitCode != 0 || x.PeakMemoryBytes != 64*wasmPage {
						t.Fatalf("exited = %v", x)
					}
				}
				wait = wait[:0]
			}
		}
		var most uint64
		waitFor(t, "a worker idles", func() bool {
			s.driver.pool.mu.Lock()
			defer s.driver.pool.mu.Unlock()
			for _, c := range s.driver.pool.idle {
				most = max(most, residentBytes(c.cmd.Process.Pid))
			}
			return most > 0
		})
		return most
	}
	warm := batch(5000)
	if after := batch(15000); after > warm+4<<20 {
		t.Errorf("a worker has %d KiB after 20,000 executions, %d KiB after 5,000", after>>10, warm>>10)
	}
}

func TestGuestMemory(t *testing.T) {
	m, err := newGuestMemory()
	if err != nil {
		t.Fatal(err)
	}
	const limit = 70 << 20
	for range 3 {
		m.begin(limit + 1)
		if b := m.Reallocate(limit + wasmPage); b != nil || !m.refused {
			t.Errorf("a growth past the limit gives %d bytes, refused %v", len(b), m.refused)
		}
		b := m.Reallocate(wasmPage)
		for _, size := range []uint64{wasmPage, keptPages, keptPages + wasmPage, limit} {
			grown := m.Reallocate(size)
			if len(grown) != int(size) || &grown[0] != &b[0] {
				t.Fatalf("grown to %d bytes, want %d in place", len(grown), size)
			}
			for _, i := range []uint64{size - wasmPage, size - 1} {
				if grown[i] != 0 {
					t.Fatalf("byte %d is left from the guest before", i)
				}
				grown[i] = 0xff
			}
			if size < limit {
				clear(grown)
			}
		}
		m.Free()
		if m.peak != limit || m.open > keptOpen {
			t.Errorf("peak %d, still open %d", m.peak, m.open)
		}
	}
}

// However many prepare a module, it is compiled once for the node.
func TestCompiledOnce(t *testing.T) {
	d, state := newDriver(t, Options{}), newState(t)
	module := writeFile(t, "m.wasm", noop)
	var wait sync.WaitGroup
	for range 8 {
		wait.Go(func() {
			if p, err := prepare(t, d, state, module); err != nil || "sha256:"+p.Handle != p.Digest {
				t.Errorf("prepare = %v, %v", p, err)
			}
		})
	}
	wait.Wait()
	if d.modules.started != 1 {
		t.Errorf("compiled %d times, want once", d.modules.started)
	}
	compiled, err := filepath.Glob(state + "/wasm/*/compiled/*/*")
	if err != nil || len(compiled) != 1 {
		t.Errorf("the cache holds %v, %v; want one file", compiled, err)
	}
	if left, _ := filepath.Glob(state + "/wasm/new-*"); len(left) > 0 {
		t.Errorf("temporary files are left: %v", left)
	}
}

// The copy that a run was prepared with is what runs, and a damaged one is named.
func TestStoreKeepsTheModule(t *testing.T) {
	s := newStand(t, Options{Lanes: 1})
	start := s.start(exits)
	var config struct{ Module string }
	if c, err := parseConfig(start.ConfigJson); err == nil {
		config.Module = strings.TrimPrefix(c.Module, "file://")
	}
	if err := os.WriteFile(config.Module, traps, 0o644); err != nil {
		t.Fatal(err)
	}
	if x := s.Run(start).Exited; x.ExitCode != 7 {
		t.Errorf("after the file was changed: exited = %v, want 7", x)
	}
	if err := os.RemoveAll(filepath.Join(s.state, storeName, start.Handle, cacheDir)); err != nil {
		t.Fatal(err)
	}
	s.driver.pool.mu.Lock()
	s.driver.pool.retire(func(*child) bool { return true })
	s.driver.pool.mu.Unlock()
	if x := s.Run(s.again(start)).Exited; x.ExitCode != 7 {
		t.Errorf("without the compile cache: exited = %v, want 7", x)
	}

	damaged := s.start(noop)
	copied := filepath.Join(s.state, storeName, damaged.Handle, moduleFile)
	b, err := os.ReadFile(copied)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)-1] ^= 1
	if err := os.WriteFile(copied, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if x := s.Run(damaged).Exited; !x.NotStarted || !strings.Contains(x.Error, "damaged") {
		t.Errorf("with a flipped bit: exited = %v, want not started and damaged", x)
	}
}

// A released module stays on disk, and its handle is void.
func TestRelease(t *testing.T) {
	s := newStand(t, Options{})
	start := s.start(noop)
	if err := s.driver.Release(context.Background(), start.Handle); err != nil {
		t.Fatal(err)
	}
	if x := s.Run(start).Exited; !x.NotStarted {
		t.Errorf("exited = %v, want not started", x)
	}
	if _, err := os.Stat(filepath.Join(s.state, storeName, start.Handle, moduleFile)); err != nil {
		t.Error(err)
	}
}

// The next run of a module starts no compiler, unless its place in the store was needed.
func TestCompiledModulesAreRemembered(t *testing.T) {
	d, state := newDriver(t, Options{}), newState(t)
	module := writeFile(t, "m.wasm", noop)
	var handle string
	use := func(compilations int) {
		t.Helper()
		p, err := prepare(t, d, state, module)
		if err != nil {
			t.Fatal(err)
		}
		handle = p.Handle
		if d.modules.started != compilations {
			t.Errorf("compiled %d times, want %d", d.modules.started, compilations)
		}
	}
	removed := func() bool { return d.modules.drop(handle, func() error { return nil }) }
	release := func() { _ = d.Release(context.Background(), handle) }
	use(1)
	if removed() {
		t.Error("a module in use was removed")
	}
	release()
	use(1)
	release()
	if !removed() {
		t.Error("a module that nobody uses could not be removed")
	}
	use(2)
	state = newState(t)
	release()
	use(3)
	release()
	if n := len(d.modules.byName); n != 1 || len(d.modules.remembered) != 1 {
		t.Errorf("%d modules are known, %v remembered; want one", n, d.modules.remembered)
	}
	for i := range 2 * maxRemembered {
		name := fmt.Sprint(i)
		ready := make(chan struct{})
		close(ready)
		d.modules.byName[name] = &prepared{refs: 1, ready: ready}
		d.modules.release(name)
	}
	if n := len(d.modules.byName); n != maxRemembered || len(d.modules.remembered) != maxRemembered {
		t.Errorf("%d modules are known and %d remembered, want %d", n, len(d.modules.remembered), maxRemembered)
	}
}

func TestConfigIsReadStrictly(t *testing.T) {
	_, err := parseConfig([]byte(`{"module": "/m", "argz": []}`))
	if e, ok := errors.AsType[*sheaf.Error](err); !ok || e.Class != sheaf.Invalid {
		t.Errorf("an unknown argument: %v", err)
	}
	c, err := parseConfig([]byte(`{"module": "file:///a%20b/prog.wasm", "args": ["x", "y"]}`))
	if err != nil || fmt.Sprint(c.argv()) != "[prog.wasm x y]" {
		t.Errorf("argv = %q, %v", c.argv(), err)
	}
}
