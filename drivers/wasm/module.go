package wasm

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/sheaf-run/agent/sheaf"
)

// workerModules is how many compiled modules a worker holds: the runs that
// take turns on a node are few, and a large module's code takes megabytes.
const workerModules = 4

// module is compiled and ready. Each has a runtime of its own, so that nothing
// of it is left when it is dropped.
type module struct {
	digest   string
	runtime  wazero.Runtime
	cache    wazero.CompilationCache
	compiled wazero.CompiledModule
}

// load compiles a module into its cache and looks whether it can be run.
func (h *host) load(ref moduleRef) loaded {
	m, f := h.module(ref)
	if f != nil {
		return loaded{fault: f}
	}
	for _, d := range m.compiled.ExportedMemories() {
		return loaded{minMemory: uint64(d.Min()) * wasmPage}
	}
	return loaded{}
}

// module gives a module ready to run, from memory, from the cache on disk, or
// by compiling it.
func (h *host) module(ref moduleRef) (*module, *fault) {
	for i, m := range h.modules {
		if m.digest == ref.digest {
			copy(h.modules[1:i+1], h.modules[:i])
			h.modules[0] = m
			return m, nil
		}
	}
	if err := h.limit.set(compilerData); err != nil {
		return nil, internalFault(err)
	}
	code, err := os.ReadFile(filepath.Join(ref.dir, moduleFile))
	if err != nil {
		return nil, internalFault(fmt.Errorf("read the prepared module: %w", err))
	}
	if sum := sha256.Sum256(code); hex.EncodeToString(sum[:]) != ref.digest {
		return nil, internalFault(fmt.Errorf("the prepared module %s is damaged: its bytes have another digest", ref.dir))
	}
	m, f := h.compile(ref, code, true)
	if f != nil && !h.compiler {
		// The cache is gone or damaged, and this worker may not write a new one.
		m, f = h.compile(ref, code, false)
	}
	if f != nil {
		return nil, f
	}
	// What loading left behind is several times what stays.
	code = nil //nolint:ineffassign // lets the collector below have it
	debug.FreeOSMemory()
	h.modules = append([]*module{m}, h.modules...)
	if n := len(h.modules); n > workerModules {
		h.modules[n-1].close(h.ctx)
		h.modules = h.modules[:n-1]
	}
	return m, nil
}

func (h *host) compile(ref moduleRef, code []byte, cached bool) (*module, *fault) {
	m := &module{digest: ref.digest}
	config := wazero.NewRuntimeConfig()
	if cached {
		var err error
		if m.cache, err = wazero.NewCompilationCacheWithDir(filepath.Join(ref.dir, cacheDir)); err != nil {
			return nil, internalFault(fmt.Errorf("open the compile cache: %w", err))
		}
		config = config.WithCompilationCache(m.cache)
	}
	m.runtime = wazero.NewRuntimeWithConfig(h.ctx, config)
	f := m.build(h.ctx, code)
	if f != nil {
		m.close(h.ctx)
		return nil, f
	}
	return m, nil
}

func (m *module) build(ctx context.Context, code []byte) (f *fault) {
	defer func() {
		if p := recover(); p != nil { // wazero's decoder meets hostile bytes here
			f = invalidModule("the module cannot be compiled: %v", p)
		}
	}()
	var err error
	if m.compiled, err = m.runtime.CompileModule(ctx, code); err != nil {
		if pathErr := (*os.PathError)(nil); errors.As(err, &pathErr) {
			return internalFault(fmt.Errorf("write the compile cache: %w", err))
		}
		return compileFault(err)
	}
	if _, err := wasi_snapshot_preview1.Instantiate(ctx, m.runtime); err != nil {
		return internalFault(fmt.Errorf("make the WASI functions: %w", err))
	}
	return inspect(m.compiled, m.runtime.Module(wasi_snapshot_preview1.ModuleName).ExportedFunctionDefinitions())
}

// close frees everything; what cannot be closed is dropped with the process.
func (m *module) close(ctx context.Context) {
	_ = m.runtime.Close(ctx)
	if m.cache != nil {
		_ = m.cache.Close(ctx)
	}
}

func internalFault(err error) *fault {
	return &fault{class: string(sheaf.Internal), msg: err.Error()}
}
