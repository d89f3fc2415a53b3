// Package supervisor runs one program after another inside a container that
// stays: [Main] is the container's process 1 and forks the programs, [Conn] is the driver's end
// of the socket between the two. A program ends up exactly as if the container had been started for it: its own
// user, no capability, no new privileges, the container's system call filter, a session of its own.
//
// The supervisor is nobody's user (no image may name it), and keeps of root's powers only
// those to become the program's user and to kill; programs can neither signal, trace nor
// limit it. It mounts nothing: what a program sees is put in place from outside. When a
// program has ended, all that it started is killed and waited for, and the [End] tells what it left. When the
// socket ends, so does the container.
package supervisor

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/sys/unix"
)

// UID is the user and group that the supervisor runs as, the last that a
// container may have. Where an image's programs run as that one, it must be another.
const UID = 1<<31 - 1

// Capabilities are what the supervisor is to be started with, ambient among
// them: it is not root.
func Capabilities() []string {
	return []string{"CAP_KILL", "CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP"}
}

// version is of the protocol below. Both ends are one binary, which may be
// replaced on disk while the driver's process runs.
const version = "sheaf supervisor 1"

// maxFrame bounds a frame, in bytes. The kernel takes some 2 MiB of arguments and
// environment, which JSON may make longer.
const maxFrame = 8 << 20

// Kinds of frames. A frame is its kind, its length in 4 bytes, and that many bytes.
const (
	frameHello   = 'h' // up, once: the version
	frameProgram = 'p' // down: a Program in JSON, with the ends of its stdout and stderr
	frameSignal  = 's' // down: a signal's number for the program that runs
	frameBegan   = 'b' // up: it was started
	frameRefused = 'r' // up: it could not be started, and why
	frameEnd     = 'e' // up: an End in JSON
)

const frameHead = 5

// Program is what is to be run.
type Program struct {
	Args   []string `json:"args"` // the first is looked up in the environment's PATH
	Env    []string `json:"env"`
	Dir    string   `json:"dir"`
	UID    uint32   `json:"uid"`
	GID    uint32   `json:"gid"`
	Groups []uint32 `json:"groups,omitempty"`
}

// End is how a program ended. None of its processes is left.
type End struct {
	Status uint32        `json:"status"`  // as wait(2) tells it
	CPU    time.Duration `json:"cpu"`     // of all its processes
	MaxRSS int64         `json:"max_rss"` // bytes, of the largest of its processes
	Left   string        `json:"left"`    // what it left behind, by which the next one could know of it; "" for nothing
}

// errFrame: the other end does not speak the protocol.
var errFrame = errors.New("a frame that nobody sends")

// frame is one whole frame to be written.
func frame(kind byte, body []byte) []byte {
	b := make([]byte, frameHead, frameHead+len(body))
	b[0] = kind
	binary.BigEndian.PutUint32(b[1:], uint32(len(body)))
	return append(b, body...)
}

// inbox puts together the frames that come through a socket, and the files with them.
type inbox struct {
	buf   []byte
	files []int
	chunk [16 << 10]byte
	oob   [64]byte
}

// fill reads once; it waits where nothing is there. io.EOF is the other end's.
func (in *inbox) fill(fd int) error {
	n, oobn, flags, _, err := unix.Recvmsg(fd, in.chunk[:], in.oob[:], unix.MSG_CMSG_CLOEXEC)
	switch {
	case errors.Is(err, unix.EINTR):
		return nil
	case err != nil:
		return err
	case flags&unix.MSG_CTRUNC != 0:
		return errFrame
	}
	messages, err := unix.ParseSocketControlMessage(in.oob[:oobn])
	if err != nil {
		return err
	}
	for i := range messages {
		files, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			return err
		}
		in.files = append(in.files, files...)
	}
	if n == 0 {
		return io.EOF
	}
	in.buf = append(in.buf, in.chunk[:n]...)
	return nil
}

// next is the first whole frame of what was read; ok is false when there is
// none. The body is good until the next fill.
func (in *inbox) next() (kind byte, body []byte, ok bool, err error) {
	if len(in.buf) < frameHead {
		return 0, nil, false, nil
	}
	n := binary.BigEndian.Uint32(in.buf[1:])
	if n > maxFrame {
		return 0, nil, false, fmt.Errorf("%w: %d bytes", errFrame, n)
	}
	if len(in.buf) < frameHead+int(n) {
		return 0, nil, false, nil
	}
	kind, body = in.buf[0], in.buf[frameHead:frameHead+int(n)]
	in.buf = in.buf[frameHead+int(n):]
	return kind, body, true, nil
}

// write sends a whole frame, and the files with its first byte.
func write(fd int, b []byte, files ...int) error {
	var rights []byte
	if len(files) > 0 {
		rights = unix.UnixRights(files...)
	}
	for len(b) > 0 {
		n, err := unix.SendmsgN(fd, b, rights, nil, unix.MSG_NOSIGNAL)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		b, rights = b[n:], nil
	}
	return nil
}
