package plugin

import (
	"bytes"
	"io"
	"os"
	"testing"
	"time"
)

// TestOutputIsReadLate: what a process said before it ended is there for a reader that was kept from reading for longer than the
// grace, also while a stray holds the pipe open.
func TestOutputIsReadLate(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	said := bytes.Repeat([]byte("the disk is on fire\n"), 1000)
	if _, err := w.Write(said); err != nil {
		t.Fatal(err)
	}
	if err := r.SetReadDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	d := &drainReader{File: r, drained: make(chan struct{})}
	defer d.Close()
	if got, err := io.ReadAll(d); err != nil || !bytes.Equal(got, said) {
		t.Errorf("%d of %d bytes were read, %v", len(got), len(said), err)
	}
	<-d.drained
}
