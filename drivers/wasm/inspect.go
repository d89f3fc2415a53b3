package wasm

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/sheaf-run/agent/sheaf"
)

// buildHint is the way out of most mistakes with modules.
const buildHint = "build a command for WASI preview 1: with Go, GOOS=wasip1 GOARCH=wasm go build; with C or C++, wasi-sdk; with Rust, --target wasm32-wasip1"

// invalidModule is a fault of the module itself.
func invalidModule(format string, args ...any) *fault {
	return &fault{class: string(sheaf.Invalid), msg: fmt.Sprintf(format, args...), hint: buildHint}
}

func (f *fault) err() error {
	return &sheaf.Error{Class: sheaf.Class(f.class), Field: "config.module", Msg: f.msg, Hint: f.hint, Limit: f.limit}
}

// headerBytes are enough to tell what a file is.
const headerBytes = 64

// checkHeader tells the files that are no core module from their first bytes.
func checkHeader(head []byte) *fault {
	magic := []byte("\x00asm")
	switch {
	case len(head) == 0:
		return invalidModule("the module is empty")
	case bytes.HasPrefix(head, magic) && len(head) < 8:
		return invalidModule("the module is truncated: it has only %d bytes", len(head))
	case bytes.HasPrefix(head, magic):
		switch version := binary.LittleEndian.Uint32(head[4:]); version {
		case 1:
			return nil
		case 0x1000d, 0x1000c, 0x1000b, 0x1000a:
			return invalidModule("the file is a WebAssembly component, not a module")
		default:
			return invalidModule("the module has version %#x, and only version 1 is known", version)
		}
	}
	return invalidModule("the file is no WebAssembly module but %s", looksLike(head))
}

func looksLike(head []byte) string {
	for _, k := range []struct{ prefix, name string }{
		{"\x7fELF", "an ELF program of this kind of machine"},
		{"MZ", "a Windows program"},
		{"\xcf\xfa\xed\xfe", "a macOS program"},
		{"!<arch>", "an archive of object files"},
		{"#!", "a script"},
		{"(module", "WebAssembly's text form; wat2wasm makes a module of it"},
		{"\x1f\x8b", "compressed with gzip"},
		{"PK\x03\x04", "a zip archive"},
		{"<", "a page of HTML or XML"},
	} {
		if bytes.HasPrefix(head, []byte(k.prefix)) {
			return k.name
		}
	}
	return fmt.Sprintf("something that begins with % x", head[:min(len(head), 8)])
}

// inspect says why a compiled module cannot be run as a program.
func inspect(c wazero.CompiledModule, host map[string]api.FunctionDefinition) *fault {
	for _, m := range c.ImportedMemories() {
		module, name, _ := m.Import()
		return invalidModule("the module imports the memory %s.%s, and must have a memory of its own", module, name)
	}
	for _, f := range c.ImportedFunctions() {
		module, name, _ := f.Import()
		if module != wasi_snapshot_preview1.ModuleName {
			return missing(module, name)
		}
		have, ok := host[name]
		if !ok {
			return missing(module, name)
		}
		if !slices.Equal(have.ParamTypes(), f.ParamTypes()) || !slices.Equal(have.ResultTypes(), f.ResultTypes()) {
			return invalidModule("the module imports the function %s.%s with another signature than it has", module, name)
		}
	}
	start, ok := c.ExportedFunctions()["_start"]
	if !ok {
		f := invalidModule("the module exports no function _start, so it is no program")
		if _, reactor := c.ExportedFunctions()["_initialize"]; reactor {
			f.msg = "the module is a library (it exports _initialize and no _start)"
			f.hint = "build a program: with Go, without -buildmode=c-shared; with wasi-sdk, without -mexec-model=reactor"
		}
		return f
	}
	if len(start.ParamTypes()) > 0 || len(start.ResultTypes()) > 0 {
		return invalidModule("the module's function _start takes or returns values")
	}
	return nil
}

// missing is an import that nothing provides, with what probably made it.
func missing(module, name string) *fault {
	f := invalidModule("the module imports the function %s.%s, which does not exist here", module, name)
	switch {
	case module == "wasi_unstable", module == "wasi_snapshot_preview0":
		f.hint = "the module is for a preview of WASI before preview 1; " + f.hint
	case module == "gojs", module == "go":
		f.hint = "the module is for a browser (GOOS=js); use GOOS=wasip1"
	case strings.Contains(module, ":"):
		f.hint = "the module is for the component model; " + f.hint
	case module == "env" && strings.HasPrefix(name, "emscripten"), module == "wbg", strings.HasPrefix(module, "__wbindgen"):
		f.hint = "the module is for a browser; " + f.hint
	}
	return f
}

// compileFault explains why wazero refused a module.
func compileFault(err error) *fault {
	text := firstLines(err.Error(), 1)
	if strings.Contains(text, "EOF") || strings.Contains(text, "unexpected end") {
		return invalidModule("the module is truncated or damaged: %s", text)
	}
	if strings.Contains(text, "feature") && strings.Contains(text, "disabled") {
		return invalidModule("the module uses a WebAssembly feature that is not supported: %s", text)
	}
	return invalidModule("the module is not valid: %s", text)
}

const (
	// trapLines and trapBytes bound what is told of a trap: the cause and the innermost calls.
	trapLines = 6
	trapBytes = 1 << 10
)

// firstLines shortens s.
func firstLines(s string, n int) string {
	lines := strings.SplitN(strings.TrimSpace(s), "\n", n+1)
	if len(lines) > n {
		lines = lines[:n]
	}
	s = strings.Join(lines, "\n")
	return strings.ToValidUTF8(s[:min(len(s), trapBytes)], "")
}
