//go:build linux

package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// leavings are what a process can leave that is neither a file nor a process.
var leavings = map[string]func() error{
	"shm": func() error { return make3(unix.SYS_SHMGET, 0x5ea, 4096, unix.IPC_CREAT|0o666) },
	"sem": func() error { return make3(unix.SYS_SEMGET, 0x5ea, 1, unix.IPC_CREAT|0o666) },
	"msg": func() error { return make3(unix.SYS_MSGGET, 0x5ea, unix.IPC_CREAT|0o666, 0) },
	"queue": func() error {
		name, err := unix.BytePtrFromString("left")
		check(err)
		_, _, errno := unix.Syscall6(unix.SYS_MQ_OPEN, uintptr(unsafe.Pointer(name)), unix.O_CREAT|unix.O_RDWR, 0o666, 0, 0, 0)
		return failed(errno)
	},
	// A connection that was closed from this side waits a minute to be forgotten.
	"connection": func() error {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		check(err)
		c, err := net.Dial("tcp", l.Addr().String())
		check(err)
		s, err := l.Accept()
		check(err)
		check(c.Close())
		_, _ = s.Read(make([]byte, 1)) // its end
		return s.Close()
	},
	// The flags of an open file are those of all who have it.
	"nonblocking": func() error { return unix.SetNonblock(1, true) },
}

func make3(call, a, b, c uintptr) error {
	_, _, errno := unix.Syscall(call, a, b, c)
	return failed(errno)
}

func failed(errno syscall.Errno) error {
	if errno != 0 {
		return errno
	}
	return nil
}

func init() {
	// catch NAME says "ready" and exits 5 when the signal comes.
	verbs["catch"] = func([]string) {
		ch := make(chan os.Signal, 1)
		signal.Notify(ch, syscall.SIGTERM, syscall.SIGINT, syscall.SIGUSR1)
		fmt.Println("ready")
		fmt.Println("caught", <-ch)
		os.Exit(5)
	}
	// ignore says "ready" and outlives every signal but SIGKILL.
	verbs["ignore"] = func([]string) {
		signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGUSR1, syscall.SIGHUP)
		fmt.Println("ready")
		time.Sleep(time.Hour)
	}
	// orphan starts a program in a session of its own that holds stdout open, prints
	// its pid and exits before it.
	verbs["orphan"] = func([]string) {
		// Where nothing can end it, it ends by itself.
		child := exec.Command("/proc/self/exe", "sleep", "30")
		child.Stdout = os.Stdout
		child.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		check(child.Start())
		fmt.Println("pid", child.Process.Pid)
	}
	// fork starts up to N sleeping children and says how many it could.
	verbs["fork"] = func(args []string) {
		n := number(args[0])
		for i := range n {
			child := exec.Command("/proc/self/exe", "ignore")
			if err := child.Start(); err != nil {
				fmt.Printf("forked %d: %v\n", i, err)
				os.Exit(1)
			}
		}
		fmt.Println("forked all")
	}
	// die kills itself with SIGUSR1.
	verbs["die"] = func([]string) {
		check(syscall.Kill(os.Getpid(), syscall.SIGUSR1))
		time.Sleep(time.Hour)
	}
	// leave WHAT makes something that outlives its process.
	verbs["leave"] = func(args []string) { check(leavings[args[0]]()) }
	// attack tries every way to reach process 1 and says which worked.
	verbs["attack"] = func([]string) {
		for what, try := range map[string]func() error{
			"trace":    func() error { return unix.PtraceSeize(1) },
			"limit":    func() error { return unix.Prlimit(1, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 3, Max: 3}, nil) },
			"priority": func() error { return unix.Setpriority(unix.PRIO_PROCESS, 1, 19) },
			"affinity": func() error { var set unix.CPUSet; set.Set(0); return unix.SchedSetaffinity(1, &set) },
			"memory":   func() error { f, err := os.Open("/proc/1/mem"); closeOf(f); return err },
			"root":     func() error { _, err := os.ReadDir("/proc/1/root"); return err },
			"files":    func() error { _, err := os.ReadDir("/proc/1/fd"); return err },
			"kill":     func() error { return unix.Kill(1, unix.SIGKILL) },
			"quit":     func() error { return unix.Kill(1, unix.SIGQUIT) },
			"stop":     func() error { return unix.Kill(1, unix.SIGSTOP) },
			"segv":     func() error { return unix.Kill(1, unix.SIGSEGV) },
		} {
			if try() == nil {
				fmt.Println("done:", what)
			}
		}
	}
	// pid prints the process' own.
	verbs["pid"] = func([]string) { fmt.Println(os.Getpid()) }
}
