//go:build linux

package main

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"
)

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
	// pid prints the process' own.
	verbs["pid"] = func([]string) { fmt.Println(os.Getpid()) }
}
