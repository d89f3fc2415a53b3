package wasm

import (
	"bytes"
	"errors"
	"io"
	"reflect"
	"testing"
)

func TestFramesComeBack(t *testing.T) {
	s := setup{compiler: true, confine: true, readOnly: []string{"/a"}, writable: []string{"/b", ""}}
	w := ready{thread: 1 << 20}
	m := moduleRef{digest: "d", dir: "/d"}
	l := loaded{fault: &fault{"invalid", "m", "h", "l"}, minMemory: 5}
	r := run{module: m, memory: 1 << 40, args: []string{"", "é"}, env: []string{"A=b"}, mounts: []mount{{"/s", "/t", true}}}
	e := exit{code: -1, notStarted: true, trapped: true, outOfMem: true, message: "m", cpuNs: 1, wallNs: 2, startedMs: 3, peak: 4}
	var b []byte
	b = appendFrame(b, kindSetup, s.append)
	b = appendFrame(b, kindReady, w.append)
	b = appendFrame(b, kindLoad, m.append)
	b = appendFrame(b, kindLoaded, l.append)
	b = appendFrame(b, kindRun, r.append)
	b = appendFrame(b, kindExit, e.append)
	f := newFrameReader(bytes.NewReader(b), 16)
	for _, want := range []any{s, w, m, l, r, e} {
		k, body, err := f.next()
		if err != nil {
			t.Fatal(err)
		}
		got, err := decodeAny(k, body)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%+v, %v; want %+v", got, err, want)
		}
	}
	if _, _, err := f.next(); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
}

func decodeAny(k kind, body []byte) (v any, err error) {
	switch k {
	case kindSetup:
		v, err = decodeSetup(body)
	case kindLoad:
		v, err = decodeModule(body)
	case kindRun:
		v, err = decodeRun(body, &run{env: []string{"A=1"}})
	case kindReady:
		v, err = decodeReady(body)
	case kindLoaded:
		v, err = decodeLoaded(body)
	default:
		v, err = decodeExit(body)
	}
	return v, err
}

func TestFramesAreJoinedOnlyWhereWhole(t *testing.T) {
	log := func(b []byte, stream byte, data string) []byte {
		return appendFrame(b, kindLog, func(b []byte) []byte { return append(append(b, stream), data...) })
	}
	b := log(log(log(nil, logStdout, "one"), logStdout, "two"), logStderr, "three")
	f := newFrameReader(bytes.NewReader(b), 1024)
	if f.peekLog(logStdout, 100) {
		t.Error("a frame is seen in an empty buffer")
	}
	if _, _, err := f.next(); err != nil {
		t.Fatal(err)
	}
	if !f.peekLog(logStdout, 3) || f.peekLog(logStdout, 2) || f.peekLog(logStderr, 100) {
		t.Error("the second frame is 3 bytes of stdout")
	}
	if _, _, err := f.next(); err != nil {
		t.Fatal(err)
	}
	if f.peekLog(logStdout, 100) || !f.peekLog(logStderr, 5) {
		t.Error("the third frame is 5 bytes of stderr")
	}
}

// FuzzFrames feeds a driver or worker any bytes: they are refused or decoded,
// in bounded memory, and what is decoded encodes to the same.
func FuzzFrames(f *testing.F) {
	r := run{module: moduleRef{"d", "/d"}, args: []string{"a"}, mounts: []mount{{"/s", "/t", true}}}
	e := exit{code: 3, message: "m"}
	l := loaded{fault: &fault{class: "invalid"}}
	f.Add(appendFrame(appendFrame(nil, kindRun, r.append), kindExit, e.append))
	f.Add(appendFrame(nil, kindLoaded, l.append))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 1})
	f.Add([]byte{5, byte(kindRun), 0, 0, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		frames := newFrameReader(bytes.NewReader(b), 64)
		for {
			frames.peekLog(logStdout, maxPiece)
			k, body, err := frames.next()
			if err != nil {
				return
			}
			if len(body) > len(b) {
				t.Fatalf("%d bytes of body from %d", len(body), len(b))
			}
			v, err := decodeAny(k, body)
			if err != nil {
				continue
			}
			var again any
			switch v := v.(type) {
			case setup:
				again, err = decodeSetup(v.append(nil))
			case moduleRef:
				again, err = decodeModule(v.append(nil))
			case run:
				again, err = decodeRun(v.append(nil), &v)
			case ready:
				again, err = decodeReady(v.append(nil))
			case loaded:
				again, err = decodeLoaded(v.append(nil))
			case exit:
				again, err = decodeExit(v.append(nil))
			}
			if err != nil || !reflect.DeepEqual(v, again) {
				t.Fatalf("%+v became %+v, %v", v, again, err)
			}
		}
	})
}
