// Package leaktest finds goroutines that the tests of a package leave behind.
package leaktest

import (
	"fmt"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// patience bounds the waiting for goroutines that are about to end: on a machine under load, and where a library closes
// what it has without waiting for it, that takes longer than goleak waits.
const patience = time.Minute

// Main runs a package's tests and exits. It fails when they pass and goroutines go on that are not ignored.
func Main(m *testing.M, ignore ...goleak.Option) {
	code := m.Run()
	if code == 0 {
		if err := left(patience, ignore...); err != nil {
			fmt.Fprintln(os.Stderr, "after all tests:", err)
			code = 1
		}
	}
	os.Exit(code)
}

// left waits until no goroutine goes on, for at most so long, and names those that do.
func left(most time.Duration, ignore ...goleak.Option) error {
	for deadline := time.Now().Add(most); ; {
		err := goleak.Find(ignore...) // which tries for half a second
		if err == nil || time.Now().After(deadline) {
			return err
		}
	}
}
