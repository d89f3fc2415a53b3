package wasm

import (
	"fmt"

	"github.com/tetratelabs/wazero/experimental"
	"golang.org/x/sys/unix"
)

const (
	// wasmPage is WebAssembly's unit of memory.
	wasmPage = 64 << 10
	// reserved is the address space of one linear memory: all that 32 bits can address.
	// Nothing of it is usable, or counted, before it is grown into.
	reserved = 4 << 30
	// keptPages is how much of a guest's memory is overwritten for the next one. The
	// rest is given back, which costs more when the next guest touches it: a Go
	// program, which begins with 3 MiB, starts a fifth faster.
	keptPages = 8 << 20
	// keptOpen is how much stays mapped for the next guest. Its pages are given
	// back all the same; this only saves the call that makes them usable.
	keptOpen = 64 << 20
)

// guestMemory is the linear memory of the one guest that runs at a time. It
// lies outside Go's heap: a guest's memory is gone when the guest is, and the
// collector neither copies nor scans it. It refuses to grow past limit.
type guestMemory struct {
	region  []byte // reserved bytes
	open    uint64 // usable prefix of region
	size    uint64
	limit   uint64
	peak    uint64
	refused bool // a growth was refused since begin
}

var (
	_ experimental.MemoryAllocator = (*guestMemory)(nil)
	_ experimental.LinearMemory    = (*guestMemory)(nil)
)

func newGuestMemory() (*guestMemory, error) {
	region, err := unix.Mmap(-1, 0, reserved, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
	if err != nil {
		return nil, fmt.Errorf("reserve address space for guests: %w", err)
	}
	return &guestMemory{region: region}, nil
}

// begin readies the memory for a guest that may have limit bytes.
func (m *guestMemory) begin(limit uint64) {
	m.limit = min(limit/wasmPage*wasmPage, reserved)
	m.size, m.peak, m.refused = 0, 0, false
}

// Allocate implements experimental.MemoryAllocator.
func (m *guestMemory) Allocate(_, _ uint64) experimental.LinearMemory { return m }

// Reallocate implements experimental.LinearMemory. The address never changes.
func (m *guestMemory) Reallocate(size uint64) []byte {
	if size > m.limit {
		m.refused = true
		return nil
	}
	if size > m.open {
		if err := unix.Mprotect(m.region[m.open:size], unix.PROT_READ|unix.PROT_WRITE); err != nil {
			m.refused = true
			return nil
		}
		m.open = size
	}
	m.size = size
	m.peak = max(m.peak, size)
	return m.region[:size:size]
}

// Free implements experimental.LinearMemory: the next guest finds zeros.
func (m *guestMemory) Free() {
	if m.size == 0 {
		return
	}
	clear(m.region[:min(m.size, keptPages)])
	if m.size > keptPages {
		if err := unix.Madvise(m.region[keptPages:m.size], unix.MADV_DONTNEED); err != nil {
			panic(fmt.Sprintf("give back %d bytes of guest memory: %v", m.size-keptPages, err))
		}
	}
	m.size = 0
	if m.open > keptOpen {
		if unix.Mprotect(m.region[keptOpen:m.open], unix.PROT_NONE) == nil {
			m.open = keptOpen
		}
	}
}
