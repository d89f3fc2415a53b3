package server

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/sheaf-run/agent/sheaf"
)

// TestToldAgain: an answer that took long is given again for as long as that is worth, and never of a run that
// stands otherwise; one that is cheap is found each time.
func TestToldAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told told
		found := 0
		takes := 10 * time.Millisecond
		ask := func(stands standing) {
			told.ask("r", stands, func() Progress {
				found++
				time.Sleep(takes)
				return Progress{}
			})
		}
		expect := func(what string, want int) {
			t.Helper()
			if found != want {
				t.Errorf("%s: found %d times, want %d", what, found, want)
			}
		}
		running := standing{status: sheaf.RunRunning}
		ask(running)
		ask(running)
		expect("asked twice", 1)
		held := running
		held.held = true
		ask(held)
		expect("held in between", 2)
		time.Sleep(toldFor * takes)
		ask(held)
		expect("later", 3)
		takes = 10 * time.Second
		time.Sleep(longestTold)
		ask(held)
		time.Sleep(longestTold)
		ask(held)
		expect("much later", 5)
		takes = dear / 2
		time.Sleep(longestTold)
		ask(held)
		ask(held)
		expect("quickly found", 7)
	})
}
