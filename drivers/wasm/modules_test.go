package wasm

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
)

// The modules of the tests are assembled here, section by section, from the binary format of the
// WebAssembly core specification.

type wasmImport struct {
	module, name string
	kind         byte // 0 function of type 1, 2 memory
}

// guest describes a module with one function, which it exports.
type guest struct {
	imports []wasmImport // function types are (i32 × 4) → i32, unless exitType
	exit    bool         // imports proc_exit, as function 0
	write   bool         // imports fd_write, as function 0
	memory  [2]byte      // first and most pages; {0, 0} is none, a most of 0 no bound
	data    string       // at 0
	export  string       // "_start" unless set
	takes   bool         // the function takes an i32
	body    []byte
}

func (g guest) bytes() []byte {
	types := [][]byte{
		{0x60, 0, 0}, // 0: () → ()
		{0x60, 4, 0x7f, 0x7f, 0x7f, 0x7f, 1, 0x7f}, // 1: fd_write
		{0x60, 1, 0x7f, 0},                         // 2: proc_exit
	}
	imports := [][]byte{}
	if g.exit {
		imports = append(imports, importOf("wasi_snapshot_preview1", "proc_exit", 0, 2))
	}
	if g.write {
		imports = append(imports, importOf("wasi_snapshot_preview1", "fd_write", 0, 1))
	}
	functions := len(imports)
	for _, i := range g.imports {
		if i.kind == 2 {
			imports = append(imports, importOf(i.module, i.name, 2, 0, 1))
			continue
		}
		imports = append(imports, importOf(i.module, i.name, 0, 1))
		functions++
	}
	start := byte(0)
	if g.takes {
		start = 2
	}
	name := g.export
	if name == "" {
		name = "_start"
	}
	b := []byte("\x00asm\x01\x00\x00\x00")
	b = section(b, 1, types...)
	b = section(b, 2, imports...)
	b = section(b, 3, []byte{start})
	if g.memory[0] > 0 {
		limits := []byte{0, g.memory[0]}
		if g.memory[1] > 0 {
			limits = []byte{1, g.memory[0], g.memory[1]}
		}
		b = section(b, 5, limits)
	}
	exports := [][]byte{append(vec(name), 0, byte(functions))}
	if g.memory[0] > 0 {
		exports = append(exports, append(vec("memory"), 2, 0))
	}
	b = section(b, 7, exports...)
	code := append([]byte{0}, g.body...)
	code = append(code, 0x0b)
	b = section(b, 10, append(binary.AppendUvarint(nil, uint64(len(code))), code...))
	if g.data != "" {
		b = section(b, 11, append([]byte{0, 0x41, 0, 0x0b}, vec(g.data)...))
	}
	return b
}

func importOf(module, name string, desc ...byte) []byte {
	return append(append(vec(module), vec(name)...), desc...)
}

func vec(s string) []byte { return append(binary.AppendUvarint(nil, uint64(len(s))), s...) }

func section(b []byte, id byte, items ...[]byte) []byte {
	if len(items) == 0 {
		return b
	}
	content := binary.AppendUvarint(nil, uint64(len(items)))
	for _, i := range items {
		content = append(content, i...)
	}
	return append(binary.AppendUvarint(append(b, id), uint64(len(content))), content...)
}

var (
	noop = guest{memory: [2]byte{1, 1}}.bytes()
	// exits with 7
	exits = guest{exit: true, body: []byte{0x41, 7, 0x10, 0}}.bytes()
	// loop br 0 end
	loops = guest{body: []byte{0x03, 0x40, 0x0c, 0, 0x0b}}.bytes()
	// unreachable
	traps = guest{body: []byte{0x00}}.bytes()
	// loop: memory.grow(16); if it is -1, unreachable; br 0
	grows = guest{memory: [2]byte{1, 0}, body: []byte{
		0x03, 0x40, 0x41, 16, 0x40, 0, 0x41, 0x7f, 0x46, 0x04, 0x40, 0x00, 0x0b, 0x0c, 0, 0x0b,
	}}.bytes()
	// calls itself for ever
	recurses = guest{body: []byte{0x10, 0}}.bytes()
	// loop: fd_write(1, iovec at 0, 1, result at 12); br 0. The iovec names the 4096 bytes from 16 on.
	prints = guest{write: true, memory: [2]byte{1, 1}, data: "\x10\x00\x00\x00\x00\x10\x00\x00", body: []byte{
		0x03, 0x40, 0x41, 1, 0x41, 0, 0x41, 1, 0x41, 12, 0x10, 0, 0x1a, 0x0c, 0, 0x0b,
	}}.bytes()
)

func writeFile(t testing.TB, name string, b []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}
