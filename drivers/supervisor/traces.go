package supervisor

import (
	"bytes"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"
)

// LeftConnections is an [End]'s Left where TCP connections of the container's network are open or
// not yet forgotten. In the host's network there always are some.
const LeftConnections = "connections"

// traces are what a program can leave in its container without a process and
// outside of the file system. The files stay open: they are read after every program.
type traces struct {
	ipc     map[string]int // System V's tables, by what is in them
	queues  int            // directory of POSIX message queues; -1 where none is mounted
	sockets int
}

func openTraces() (*traces, error) {
	t := &traces{ipc: map[string]int{}}
	var err error
	for what, path := range map[string]string{
		"shared memory": "/proc/sysvipc/shm", "semaphores": "/proc/sysvipc/sem", "message queues": "/proc/sysvipc/msg",
	} {
		if t.ipc[what], err = unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
			return nil, fmt.Errorf("open %s: %w", path, err)
		}
	}
	if t.sockets, err = unix.Open("/proc/net/sockstat", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
		return nil, fmt.Errorf("open the table of sockets: %w", err)
	}
	if t.queues, err = unix.Open("/dev/mqueue", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		t.queues = -1
	}
	return t, nil
}

// found names what is there, "" being nothing. No program runs. What cannot
// be read is taken to be there.
func (t *traces) found() string {
	var buf [4096]byte
	for what, fd := range t.ipc {
		n, err := unix.Pread(fd, buf[:], 0)
		if err != nil || bytes.Count(buf[:n], []byte("\n")) != 1 { // the first line says what the columns are
			return what
		}
	}
	if t.queues >= 0 {
		if empty, err := Empty(t.queues); err != nil || !empty {
			return "message queues"
		}
	}
	n, err := unix.Pread(t.sockets, buf[:], 0)
	if err != nil || connections(buf[:n]) != 0 {
		return LeftConnections
	}
	return ""
}

// connections counts those of TCP, of this network namespace alone, that are open or
// wait to be forgotten: their addresses cannot be listened at again at once. It is -1 where that cannot be read.
// The format is "TCP: inuse N orphan N tw N alloc N mem N"; orphans are the whole machine's.
func connections(sockstat []byte) int {
	for line := range bytes.Lines(sockstat) {
		f := bytes.Fields(line)
		if len(f) < 7 || string(f[0]) != "TCP:" || string(f[1]) != "inuse" || string(f[5]) != "tw" {
			continue
		}
		open, err := strconv.Atoi(string(f[2]))
		waiting, err2 := strconv.Atoi(string(f[6]))
		if err != nil || err2 != nil {
			return -1
		}
		return open + waiting
	}
	return -1
}

// Empty reports whether an open directory has no entries.
func Empty(dir int) (bool, error) {
	if _, err := unix.Seek(dir, 0, unix.SEEK_SET); err != nil {
		return false, err
	}
	var buf [4096]byte
	n, err := unix.Getdents(dir, buf[:])
	if err != nil {
		return false, err
	}
	_, _, names := unix.ParseDirent(buf[:n], 1, nil)
	return len(names) == 0, nil
}
