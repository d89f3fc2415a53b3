package wasm

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/sheaf-run/agent/drivers/driverpb"
	"github.com/sheaf-run/agent/sheaf"
)

func prepare(t testing.TB, d *Driver, stateDir, module string) (*driverpb.PrepareResponse, error) {
	t.Helper()
	return d.Prepare(context.Background(), &driverpb.PrepareRequest{
		Run: "run", ConfigJson: configOf(t, module), StateDir: stateDir, MemoryBytes: 128 << 20,
	})
}

// Each of these is refused when the run is prepared, with what it is and how to build a proper one.
func TestPrepareRefusesWhatIsNoProgram(t *testing.T) {
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	wasi := func(name string) []wasmImport { return []wasmImport{{"wasi_snapshot_preview1", name, 0}} }
	for name, c := range map[string]struct {
		module     []byte
		says, hint string
	}{
		"empty":               {nil, "the module is empty", "GOOS=wasip1"},
		"cut in its header":   {noop[:6], "truncated", "GOOS=wasip1"},
		"cut in a section":    {noop[:len(noop)-5], "truncated or damaged", "GOOS=wasip1"},
		"cut after a section": {noop[:14], "truncated or damaged", "GOOS=wasip1"},
		"an ELF":              {self[:4096], "an ELF program", "GOOS=wasip1"},
		"text form":           {[]byte("(module)"), "WebAssembly's text form", "wasi-sdk"},
		"a component":         {[]byte("\x00asm\x0d\x00\x01\x00"), "component", "wasm32-wasip1"},
		"another version":     {[]byte("\x00asm\x02\x00\x00\x00"), "version 0x2", "GOOS=wasip1"},
		"no _start":           {guest{export: "main"}.bytes(), "no function _start", "GOOS=wasip1"},
		"a library":           {guest{export: "_initialize"}.bytes(), "a library", "c-shared"},
		"_start with a value": {guest{takes: true}.bytes(), "takes or returns", "GOOS=wasip1"},
		"an import of nobody": {guest{imports: []wasmImport{{"env", "no_such", 0}}}.bytes(), "env.no_such", "GOOS=wasip1"},
		"an unknown of WASI":  {guest{imports: wasi("fd_teleport")}.bytes(), "wasi_snapshot_preview1.fd_teleport", "GOOS=wasip1"},
		"another signature":   {guest{imports: wasi("proc_exit")}.bytes(), "proc_exit with another signature", "GOOS=wasip1"},
		"a memory of nobody":  {guest{imports: []wasmImport{{"env", "memory", 2}}}.bytes(), "memory env.memory", "GOOS=wasip1"},
		"built for browsers":  {guest{imports: []wasmImport{{"gojs", "runtime.wasmExit", 0}}}.bytes(), "gojs.runtime.wasmExit", "GOOS=js"},
		"a bad body":          {guest{body: []byte{0xff, 0xff}}.bytes(), "not valid", "GOOS=wasip1"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := prepare(t, newDriver(t, Options{}), newState(t), writeFile(t, "m.wasm", c.module))
			e, ok := errors.AsType[*sheaf.Error](err)
			if !ok || e.Class != sheaf.Invalid || e.Field != "config.module" {
				t.Fatalf("prepare = %v, want a sheaf.Error of class invalid", err)
			}
			if !strings.Contains(e.Msg, c.says) || !strings.Contains(e.Hint, c.hint) {
				t.Errorf("says %q, hint %q; want %q and %q in them", e.Msg, e.Hint, c.says, c.hint)
			}
		})
	}
}

func TestPrepareRefusesLocations(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	huge := filepath.Join(dir, "huge")
	if err := os.WriteFile(huge, noop, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(huge, maxModuleBytes+1); err != nil {
		t.Fatal(err)
	}
	d, state := newDriver(t, Options{}), newState(t)
	for location, want := range map[string]struct {
		class sheaf.Class
		says  string
	}{
		"s3://bucket/program.wasm":  {sheaf.Unsupported, "s3://"},
		"https://host/program.wasm": {sheaf.Unsupported, "https://"},
		"ipfs://not-a-cid":          {sheaf.Unsupported, "ipfs://"},
		"HTTP://169.254.169.254/":   {sheaf.Unsupported, "http://"},
		"program.wasm":              {sheaf.Invalid, "not absolute"},
		"file://host/program.wasm":  {sheaf.Invalid, "no file on this node"},
		"/none/${partition.index}":  {sheaf.Invalid, "${partition.index}"},
		filepath.Join(dir, "none"):  {sheaf.Invalid, "does not exist"},
		dir:                         {sheaf.Invalid, "not a file"},
		fifo:                        {sheaf.Invalid, "not a file"},
		huge:                        {sheaf.TooLarge, "256 MiB"},
		"file:///%zz":               {sheaf.Invalid, "no URL"},
	} {
		config := []byte(`{"module": "` + location + `"}`)
		_, err := d.Prepare(context.Background(), &driverpb.PrepareRequest{ConfigJson: config, StateDir: state})
		if sheaf.ClassOf(err) != want.class || !strings.Contains(err.Error(), want.says) {
			t.Errorf("%s: %v (class %s), want %q of class %s", location, err, sheaf.ClassOf(err), want.says, want.class)
		}
		if e, ok := errors.AsType[*sheaf.Error](err); !ok || e.Field != "config.module" || e.Hint == "" {
			t.Errorf("%s: %#v names no field or no way out", location, err)
		}
	}
}

func TestPrepareChecksTheRun(t *testing.T) {
	d, state := newDriver(t, Options{}), newState(t)
	big := writeFile(t, "big.wasm", guest{memory: [2]byte{100, 0}}.bytes())
	for name, c := range map[string]struct {
		req  *driverpb.PrepareRequest
		says string
	}{
		"another digest": {&driverpb.PrepareRequest{PinnedDigest: "sha256:00"}, "was submitted with sha256:00"},
		"a network":      {&driverpb.PrepareRequest{Network: "host"}, "have none"},
		"little memory":  {&driverpb.PrepareRequest{MemoryBytes: 1 << 20}, "begins with 6553600 bytes"},
	} {
		c.req.ConfigJson, c.req.StateDir = configOf(t, big), state
		if _, err := d.Prepare(context.Background(), c.req); sheaf.ClassOf(err) != sheaf.Invalid || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q of class invalid", name, err, c.says)
		}
	}
	p, err := prepare(t, d, state, big)
	if err != nil {
		t.Fatal(err)
	}
	req := driverpb.PrepareRequest{ConfigJson: configOf(t, big), StateDir: state, PinnedDigest: p.Digest, MemoryBytes: 100 * wasmPage, Network: "none"}
	if _, err := d.Prepare(context.Background(), &req); err != nil {
		t.Errorf("with its own digest and just enough memory: %v", err)
	}
}

// A module whose compilation takes all memory, or for ever, ends its compiler
// and not the driver. Here the compiler is no compiler at all.
func TestPrepareOutlivesItsCompiler(t *testing.T) {
	module := writeFile(t, "m.wasm", noop)
	for script, says := range map[string]string{
		"exit 3":                                "brought its compiler down",
		"echo 'fatal error: out of memory' >&2": "too much memory",
		"kill -SEGV $$":                         "brought its compiler down",
		`printf '\377\377\377\377\377\377' >&4`: "brought its compiler down",
	} {
		d := newDriver(t, Options{Worker: []string{"/bin/sh", "-c", script}})
		if _, err := prepare(t, d, newState(t), module); sheaf.ClassOf(err) != sheaf.Invalid || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want %q of class invalid", script, err, says)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	d := newDriver(t, Options{Worker: []string{"/bin/sh", "-c", "exec sleep 3600"}})
	got := make(chan error)
	go func() {
		_, err := d.Prepare(ctx, &driverpb.PrepareRequest{ConfigJson: configOf(t, module), StateDir: newState(t)})
		got <- err
	}()
	cancel()
	if err := <-got; !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled prepare says %v", err)
	}
}
