package wasm

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/sheaf-run/agent/drivers/driverpb"
	"github.com/sheaf-run/agent/sheaf"
)

// compileTimeout bounds the compilation of one module. Go's own compiler, built as
// a module of 30 MB, takes a quarter of it.
const compileTimeout = 2 * time.Minute

// maxRemembered bounds the modules that are remembered as compiled while no run uses them, so
// that the next run of one starts no compiler. Each takes some hundred bytes.
const maxRemembered = 256

// modules are the modules that this driver prepared.
type modules struct {
	spawner *spawner

	mu         sync.Mutex
	byName     map[string]*prepared // by digest, which is the handle
	remembered []string             // digests of those without references, the one released last at the end
	started    int                  // compilations begun; for tests
}

// prepared is a module in the store. ready is closed when it is compiled;
// then minMemory and err stand.
type prepared struct {
	ref       moduleRef
	refs      int
	ready     chan struct{}
	minMemory uint64
	err       error
}

func newModules(s *spawner) *modules {
	return &modules{spawner: s, byName: map[string]*prepared{}}
}

func (m *modules) prepare(ctx context.Context, req *driverpb.PrepareRequest) (*driverpb.PrepareResponse, error) {
	config, err := parseConfig(req.ConfigJson)
	if err != nil {
		return nil, err
	}
	if n := req.Network; n != "" && n != "none" {
		return nil, &sheaf.Error{
			Class: sheaf.Invalid, Field: "network", Msg: fmt.Sprintf("network %q asked for, but WebAssembly tasks have none", n),
			Hint: `leave network out, or write network = "none"`,
		}
	}
	path, err := modulePath(config.Module)
	if err != nil {
		return nil, err
	}
	if req.StateDir == "" {
		return nil, fmt.Errorf("prepare module: no state directory is given")
	}
	m.spawner.mark(req.StateDir)
	store := storeIn(req.StateDir)
	ref, err := store.add(path)
	if err != nil {
		return nil, err
	}
	digest := "sha256:" + ref.digest
	if req.PinnedDigest != "" && req.PinnedDigest != digest {
		return nil, &sheaf.Error{
			Class: sheaf.Invalid, Field: "config.module",
			Msg:  fmt.Sprintf("the module %s is %s, and the run was submitted with %s", path, digest, req.PinnedDigest),
			Hint: "submit the job again to use the module as it is now",
		}
	}
	p, err := m.compiled(ctx, ref)
	if err != nil {
		return nil, fmt.Errorf("module %s: %w", path, err)
	}
	if limit := uint64(req.MemoryBytes); req.MemoryBytes > 0 && p.minMemory > limit/wasmPage*wasmPage {
		m.release(ref.digest)
		return nil, &sheaf.Error{
			Class: sheaf.Invalid, Field: "resources.memory", Limit: fmt.Sprintf("%d bytes", limit),
			Msg:  fmt.Sprintf("the module begins with %d bytes of memory", p.minMemory),
			Hint: "raise memory in resources",
		}
	}
	store.trim(m.drop)
	return &driverpb.PrepareResponse{Handle: ref.digest, Digest: digest}, nil
}

// compiled gives the module once it is compiled, which happens once however many ask. It takes a
// reference on success.
func (m *modules) compiled(ctx context.Context, ref moduleRef) (*prepared, error) {
	for {
		m.mu.Lock()
		p := m.byName[ref.digest]
		if p != nil && p.ref != ref && p.idle() {
			p = nil // it was compiled in another store
		}
		mine := p == nil
		if mine {
			m.recall(ref.digest)
			p = &prepared{ref: ref, ready: make(chan struct{})}
			m.byName[ref.digest] = p
			m.started++
		}
		m.mu.Unlock()
		if mine {
			p.minMemory, p.err = m.spawner.compile(ctx, ref)
			if p.err != nil {
				m.mu.Lock()
				delete(m.byName, ref.digest)
				m.mu.Unlock()
			}
			close(p.ready)
		}
		select {
		case <-p.ready:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		switch {
		case p.err == nil:
			m.mu.Lock()
			p.refs++
			m.byName[ref.digest] = p
			m.recall(ref.digest)
			m.mu.Unlock()
			return p, nil
		case mine || sheaf.ClassOf(p.err) == sheaf.Invalid:
			return nil, p.err
		}
		// Whoever compiled gave up; it is this caller's turn.
	}
}

// get is the module of a handle.
func (m *modules) get(handle string) (moduleRef, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.byName[handle]
	if p == nil || p.refs == 0 {
		return moduleRef{}, false
	}
	return p.ref, true
}

// release gives a reference back. The module stays remembered as compiled.
func (m *modules) release(handle string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.byName[handle]
	if p == nil || p.refs == 0 {
		return
	}
	if p.refs--; p.refs > 0 {
		return
	}
	m.remembered = append(m.remembered, handle)
	if len(m.remembered) > maxRemembered {
		delete(m.byName, m.remembered[0])
		m.remembered = slices.Delete(m.remembered, 0, 1)
	}
}

// idle reports whether the module is compiled and nobody's. The caller holds modules.mu.
func (p *prepared) idle() bool {
	select {
	case <-p.ready:
		return p.refs == 0
	default:
		return false
	}
}

// recall takes a digest off the list of those without references. The caller holds mu.
func (m *modules) recall(digest string) {
	m.remembered = slices.DeleteFunc(m.remembered, func(d string) bool { return d == digest })
}

// drop removes a module from the store by remove and forgets it, unless it is in use.
func (m *modules) drop(digest string, remove func() error) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if p := m.byName[digest]; p != nil {
		if !p.idle() {
			return false
		}
		delete(m.byName, digest)
		m.recall(digest)
	}
	return remove() == nil
}
