package wasm

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"
	"github.com/tetratelabs/wazero/experimental/sysfs"
	"github.com/tetratelabs/wazero/sys"
	"golang.org/x/sys/unix"

	"github.com/sheaf-run/agent/drivers"
	"github.com/sheaf-run/agent/drivers/wasm/guestfs"
)

// maxPiece bounds the data of a log frame.
const maxPiece = drivers.MaxLog

// host runs guests in a worker.
type host struct {
	ctx      context.Context
	out      *eventWriter
	compiler bool
	memory   *guestMemory
	limit    dataLimit
	modules  []*module // most recently used first
	base     wazero.ModuleConfig
	last     configured // of previous
	previous run
}

func newHost(ctx context.Context, out *eventWriter, compiler bool, limit dataLimit) (*host, error) {
	memory, err := newGuestMemory()
	if err != nil {
		return nil, err
	}
	return &host{
		ctx: experimental.WithMemoryAllocator(ctx, memory), out: out, compiler: compiler, memory: memory, limit: limit,
		base: wazero.NewModuleConfig().WithName("").WithStartFunctions().
			WithStdout(&logWriter{out, logStdout}).WithStderr(&logWriter{out, logStderr}).
			WithSysWalltime().WithSysNanotime().WithSysNanosleep().WithRandSource(rand.Reader),
	}, nil
}

// run runs one execution from its beginning to its end.
func (h *host) run(r *run) (e exit) {
	begun := time.Now()
	cpu := cpuTime()
	defer func() {
		e.startedMs = uint64(begun.UnixMilli())
		e.wallNs, e.cpuNs, e.peak = uint64(time.Since(begun)), cpuTime()-cpu, h.memory.peak
		if e.code != 0 || e.trapped || e.notStarted {
			e.outOfMem = h.memory.refused
		}
	}()
	h.memory.begin(r.memory)
	for _, v := range slices.Concat(r.args, r.env) {
		if strings.IndexByte(v, 0) >= 0 {
			return notStarted(fmt.Errorf("the argument or variable %q holds a NUL byte", firstLines(v, 1)))
		}
	}
	m, f := h.module(r.module)
	if f != nil {
		return notStarted(f.err())
	}
	if err := h.limit.set(workerData + h.memory.limit); err != nil {
		return notStarted(err)
	}
	tree, err := openTree(r.mounts)
	if err != nil {
		return notStarted(err)
	}
	defer tree.Close()
	return h.call(m, h.config(r, tree))
}

func notStarted(err error) exit {
	return exit{code: -1, notStarted: true, message: err.Error()}
}

func openTree(mounts []mount) (*guestfs.FS, error) {
	list := make([]guestfs.Mount, len(mounts))
	for i, m := range mounts {
		list[i] = guestfs.Mount{Source: m.source, Target: m.target, ReadOnly: m.readOnly}
	}
	return guestfs.New(list)
}

func (h *host) config(r *run, tree *guestfs.FS) wazero.ModuleConfig {
	return h.last.become(h.base, r).WithFSConfig(wazero.NewFSConfig().(sysfs.FSConfig).WithSysFSMount(tree, "/"))
}

// call instantiates the module and calls _start.
func (h *host) call(m *module, config wazero.ModuleConfig) (e exit) {
	defer func() {
		if p := recover(); p != nil {
			h.memory.Free()
			e = notStarted(fmt.Errorf("instantiate the module: %v", p))
			if h.memory.refused {
				e.message = fmt.Sprintf("the module's memory is larger at the start than its limit of %d bytes", h.memory.limit)
			}
		}
	}()
	instance, err := m.runtime.InstantiateModule(h.ctx, m.compiled, config)
	if err != nil {
		// A start section runs here, and may trap or exit as _start may.
		return ended(err)
	}
	defer func() { _ = instance.Close(h.ctx) }() // frees its memory and files; it cannot fail in a way that matters
	return ended(callStart(h.ctx, instance))
}

func callStart(ctx context.Context, instance api.Module) error {
	_, err := instance.ExportedFunction("_start").Call(ctx)
	return err
}

// maxExitCode is the largest code a process can have. Larger ones become it, so
// that none is cut down to 0, which is success.
const maxExitCode = 255

// ended says how a guest ended, from the error of its last call.
func ended(err error) exit {
	if err == nil {
		return exit{}
	}
	if e, ok := errors.AsType[*sys.ExitError](err); ok {
		return exit{code: int64(min(e.ExitCode(), maxExitCode))}
	}
	return exit{code: -1, trapped: true, message: firstLines(err.Error(), trapLines)}
}

// cpuTime is what this process has used, in ns.
func cpuTime() uint64 {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return uint64(u.Utime.Nano() + u.Stime.Nano())
}
