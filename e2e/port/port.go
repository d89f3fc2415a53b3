// Package port hands out ports of loopback to the programs that tests and benchmarks start.
package port

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
)

// The ports lie below those that the kernel gives to connections: a connection that is tried again and again to a
// port of the kernel's can meet itself there, and have it.
const (
	lowest  = 10_000
	highest = 30_000

	// block is how many ports a process claims at once. Its first one stays open as the sign of the claim.
	block = 100
)

var claimed struct {
	mu        sync.Mutex
	next, end int // of the claimed block, what is not handed out
	above     int // the blocks below were tried
	sign      []net.Listener
}

// Free gives a port that nobody listens on, neither on TCP nor, as gossip needs, on UDP, and that neither this process nor another that
// asks this package is given again while this process lives: between being found free and being opened nobody else takes it.
func Free() (int, error) {
	claimed.mu.Lock()
	defer claimed.mu.Unlock()
	for {
		if claimed.next == claimed.end {
			if err := claim(); err != nil {
				return 0, err
			}
		}
		at := claimed.next
		claimed.next++
		if free(at) {
			return at, nil
		}
	}
}

// claim takes the next block that no other process has.
func claim() error {
	for at := max(claimed.above, lowest); at < highest; at += block {
		claimed.above = at + block
		l, err := net.Listen("tcp", address(at))
		if err != nil {
			continue
		}
		claimed.sign = append(claimed.sign, l)
		claimed.next, claimed.end = at+1, at+block
		return nil
	}
	return errors.New("no port is free from " + strconv.Itoa(lowest) + " to " + strconv.Itoa(highest))
}

func free(at int) bool {
	l, err := net.Listen("tcp", address(at))
	if err != nil {
		return false
	}
	defer l.Close()
	u, err := net.ListenPacket("udp", address(at))
	if err != nil {
		return false
	}
	u.Close()
	return true
}

func address(at int) string { return fmt.Sprintf("127.0.0.1:%d", at) }
