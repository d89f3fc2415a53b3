package containerd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sheaf-run/agent/drivers"
	"github.com/sheaf-run/agent/drivers/driverpb"
)

// pipes are the reading ends of a container's stdout and stderr. The files
// have its name, so that another process finds them.
type pipes [2]*os.File

func pipePaths(dir, container string) [2]string {
	return [2]string{filepath.Join(dir, container+".out"), filepath.Join(dir, container+".err")}
}

// makePipes makes a container's pipes. The function closes what keeps them from ending before
// the shim has opened them.
func makePipes(dir, container string) (p pipes, opened func(), err error) {
	var keep []int
	opened = func() {
		for _, fd := range keep {
			_ = unix.Close(fd) // nothing was written
		}
	}
	for i, path := range pipePaths(dir, container) {
		err = unix.Mkfifo(path, 0o600)
		if err == nil {
			p[i], err = openPipe(path)
		}
		if err == nil {
			var fd int
			if fd, err = unix.Open(path, unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0); err == nil {
				keep = append(keep, fd)
			}
		}
		if err != nil {
			opened()
			p.close()
			return pipes{}, nil, fmt.Errorf("make an output pipe: %w", err)
		}
	}
	return p, opened, nil
}

// findPipes opens the pipes of a container that was made by another process. What
// cannot be opened is left out.
func findPipes(dir, container string) (p pipes, err error) {
	var errs [2]error
	for i, path := range pipePaths(dir, container) {
		p[i], errs[i] = openPipe(path)
	}
	return p, errors.Join(errs[:]...)
}

// openPipe does not wait for a writer, and its reads can be given a deadline.
func openPipe(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
}

func (p pipes) close() {
	for _, f := range p {
		if f != nil {
			_ = f.Close() // reading ends
		}
	}
}

var buffers = sync.Pool{New: func() any { return new([drivers.MaxLog]byte) }}

// forward sends the output of e on until the pipes end or ctx does, and closes them. It takes
// room before it reads, so that at the end of ctx nothing that was read is left unsent.
func (s *session) forward(ctx context.Context, e *execution, p pipes) *sync.WaitGroup {
	var readers sync.WaitGroup
	for i, f := range p {
		if f == nil {
			continue
		}
		readers.Go(func() {
			defer f.Close()
			stop := context.AfterFunc(ctx, func() { _ = f.SetReadDeadline(time.Unix(1, 0)) }) // fails on a closed file only
			defer stop()
			buf := buffers.Get().(*[drivers.MaxLog]byte)
			defer buffers.Put(buf)
			for {
				if e.window.Take(ctx, drivers.MaxLog) != nil {
					return
				}
				n, err := f.Read(buf[:])
				e.window.Ack(int64(drivers.MaxLog - n))
				if n > 0 {
					s.emit(&driverpb.Event{Body: &driverpb.Event_Log{Log: &driverpb.Log{Execution: e.id, Stderr: i == 1, Data: append([]byte(nil), buf[:n]...)}}})
				}
				if err != nil {
					return
				}
			}
		})
	}
	return &readers
}
