package wasm

import "encoding/binary"

// setup is what a worker is for its whole life.
type setup struct {
	compiler bool     // may write to readWrite's first, and runs nothing
	confine  bool     // reach the listed directories only
	readOnly []string // directories
	writable []string
}

// ready is a worker's first word.
type ready struct {
	thread uint64 // the one that guests run on
}

// moduleRef names a prepared module.
type moduleRef struct {
	digest string // sha256, hex
	dir    string // holds module.wasm and the compile cache
}

// loaded is what a compilation found.
type loaded struct {
	fault     *fault // nil: the module can be run
	minMemory uint64 // bytes
}

// fault is a sheaf.Error on its way out of a worker.
type fault struct{ class, msg, hint, limit string }

// run is one execution.
type run struct {
	module moduleRef
	memory uint64 // bytes that the guest may have
	args   []string
	env    []string // NAME=value
	mounts []mount
}

type mount struct {
	source, target string
	readOnly       bool
}

// logHeader precedes the bytes of a log frame.
const (
	logStdout byte = 1
	logStderr byte = 2
)

// exit is the end of an execution.
type exit struct {
	code       int64
	notStarted bool
	trapped    bool
	outOfMem   bool
	message    string
	cpuNs      uint64
	wallNs     uint64
	startedMs  uint64 // Unix time
	peak       uint64 // bytes of guest memory
}

func (s *setup) append(b []byte) []byte {
	b = appendBool(b, s.compiler)
	b = appendBool(b, s.confine)
	b = appendStrings(b, s.readOnly)
	return appendStrings(b, s.writable)
}

func decodeSetup(body []byte) (s setup, err error) {
	d := decoder{b: body}
	s.compiler, s.confine = d.bool(), d.bool()
	s.readOnly, s.writable = d.strings(), d.strings()
	return s, d.end()
}

func (r *ready) append(b []byte) []byte { return binary.AppendUvarint(b, r.thread) }

func decodeReady(body []byte) (r ready, err error) {
	d := decoder{b: body}
	r.thread = d.uint()
	return r, d.end()
}

func (m *moduleRef) append(b []byte) []byte {
	return appendString(appendString(b, m.digest), m.dir)
}

func decodeModule(body []byte) (m moduleRef, err error) {
	d := decoder{b: body}
	m.digest, m.dir = d.string(), d.string()
	return m, d.end()
}

func (l *loaded) append(b []byte) []byte {
	b = appendBool(b, l.fault != nil)
	if f := l.fault; f != nil {
		for _, s := range []string{f.class, f.msg, f.hint, f.limit} {
			b = appendString(b, s)
		}
	}
	return binary.AppendUvarint(b, l.minMemory)
}

func decodeLoaded(body []byte) (l loaded, err error) {
	d := decoder{b: body}
	if d.bool() {
		l.fault = &fault{class: d.string(), msg: d.string(), hint: d.string(), limit: d.string()}
	}
	l.minMemory = d.uint()
	return l, d.end()
}

func (r *run) append(b []byte) []byte {
	b = r.module.append(b)
	b = binary.AppendUvarint(b, r.memory)
	b = appendStrings(b, r.args)
	b = appendStrings(b, r.env)
	b = binary.AppendUvarint(b, uint64(len(r.mounts)))
	for _, m := range r.mounts {
		b = appendBool(appendString(appendString(b, m.source), m.target), m.readOnly)
	}
	return b
}

// decodeRun decodes a run that follows last, of which it keeps the strings that are the same.
func decodeRun(body []byte, last *run) (r run, err error) {
	d := decoder{b: body}
	r.module.digest, r.module.dir = d.stringLike(last.module.digest), d.stringLike(last.module.dir)
	r.memory = d.uint()
	r.args, r.env = d.stringsLike(last.args), d.stringsLike(last.env)
	for n := d.count(); n > 0 && !d.bad; n-- {
		r.mounts = append(r.mounts, mount{source: d.string(), target: d.string(), readOnly: d.bool()})
	}
	return r, d.end()
}

func (e *exit) append(b []byte) []byte {
	b = binary.AppendVarint(b, e.code)
	b = appendBool(b, e.notStarted)
	b = appendBool(b, e.trapped)
	b = appendBool(b, e.outOfMem)
	b = appendString(b, e.message)
	for _, n := range []uint64{e.cpuNs, e.wallNs, e.startedMs, e.peak} {
		b = binary.AppendUvarint(b, n)
	}
	return b
}

func decodeExit(body []byte) (e exit, err error) {
	d := decoder{b: body}
	e.code = d.int()
	e.notStarted, e.trapped, e.outOfMem = d.bool(), d.bool(), d.bool()
	e.message = d.string()
	e.cpuNs, e.wallNs, e.startedMs, e.peak = d.uint(), d.uint(), d.uint(), d.uint()
	return e, d.end()
}
