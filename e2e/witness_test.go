package e2e

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// witness hears from the kernel of every opening and closing of some files, by
// whichever process, container or sandbox, in the order in which they happened. A
// task that holds a file open for its life is seen to start and to end so. The kernel joins
// events of one process until they are read; those of several it keeps apart.
type witness struct {
	t  *testing.T
	fd int

	mu       sync.Mutex
	starts   map[string][]int32 // file's name to the processes that opened it, in order
	holders  map[string][]int32 // those of them that have it open
	overlaps []string
}

// watch makes a witness of the files.
func watch(t *testing.T, paths ...string) *witness {
	t.Helper()
	fd, err := unix.FanotifyInit(unix.FAN_CLASS_NOTIF|unix.FAN_CLOEXEC|unix.FAN_NONBLOCK, unix.O_RDONLY|unix.O_LARGEFILE|unix.O_CLOEXEC)
	if err != nil {
		t.Fatalf("fanotify: %v", err)
	}
	for _, path := range paths {
		if err := unix.FanotifyMark(fd, unix.FAN_MARK_ADD, unix.FAN_OPEN|unix.FAN_CLOSE, unix.AT_FDCWD, path); err != nil {
			t.Fatalf("watch %s: %v", path, err)
		}
	}
	w := &witness{t: t, fd: fd, starts: map[string][]int32{}, holders: map[string][]int32{}}
	events := os.NewFile(uintptr(fd), "fanotify")
	done := make(chan struct{})
	go func() {
		defer close(done)
		for b := make([]byte, 64<<10); ; {
			n, err := events.Read(b)
			if err != nil {
				return
			}
			w.read(b[:n])
		}
	}()
	t.Cleanup(func() {
		events.Close()
		<-done
	})
	return w
}

func (w *witness) read(b []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(b) >= int(unsafe.Sizeof(unix.FanotifyEventMetadata{})) {
		e := *(*unix.FanotifyEventMetadata)(unsafe.Pointer(&b[0]))
		b = b[e.Event_len:]
		if e.Fd < 0 {
			w.overlaps = append(w.overlaps, "the kernel's queue overflowed")
			continue
		}
		path, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", e.Fd))
		_ = unix.Close(int(e.Fd))
		if err != nil {
			w.overlaps = append(w.overlaps, err.Error())
			continue
		}
		w.saw(filepath.Base(path), e.Mask, e.Pid)
	}
}

func (w *witness) saw(name string, mask uint64, pid int32) {
	if mask&unix.FAN_OPEN != 0 {
		if len(w.holders[name]) > 0 {
			w.overlaps = append(w.overlaps, fmt.Sprintf("process %d began %s while %d ran", pid, name, w.holders[name]))
		}
		w.starts[name] = append(w.starts[name], pid)
		w.holders[name] = append(w.holders[name], pid)
	}
	if mask&unix.FAN_CLOSE != 0 && len(w.holders[name]) > 0 {
		w.holders[name] = w.holders[name][1:]
	}
}

// running gives the files that are held open, with the process that opened each.
func (w *witness) running() map[string]int32 {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := map[string]int32{}
	for name, pids := range w.holders {
		if len(pids) > 0 {
			out[name] = pids[0]
		}
	}
	return out
}

// started gives the processes that opened each file so far.
func (w *witness) started() map[string][]int32 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return maps.Clone(w.starts)
}

// check fails the test if a file was opened while another process had it open.
func (w *witness) check() {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, o := range w.overlaps {
		w.t.Error(o)
	}
}

// TestWitness: what is opened while it is open is an overlap; what is opened again later is none.
func TestWitness(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	write(t, path, "")
	w := watch(t, path)
	var files []*os.File
	// The kernel joins events of one process that nobody has read yet, so each is awaited.
	step := func(open bool, opened, held int) {
		t.Helper()
		if open {
			f, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, f)
		} else {
			files[0].Close()
			files = files[1:]
		}
		await(t, "the witness has heard of it", func() bool {
			w.mu.Lock()
			defer w.mu.Unlock()
			return len(w.starts["file"]) == opened && len(w.holders["file"]) == held
		})
	}
	step(true, 1, 1)
	step(false, 1, 0)
	step(true, 2, 1)
	if len(w.overlaps) != 0 {
		t.Errorf("one after the other is an overlap: %q", w.overlaps)
	}
	step(true, 3, 2)
	step(false, 3, 1)
	step(false, 3, 0)
	if len(w.overlaps) != 1 {
		t.Errorf("two at once are %q", w.overlaps)
	}
}
