package liveness_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sheaf-run/agent/server/liveness"
	"github.com/sheaf-run/agent/sheaf"
)

const period = liveness.Lease + liveness.Grace

func TestPeriodLeavesTimeToRunAgain(t *testing.T) {
	if period > 13*time.Second {
		t.Errorf("a node is lost after %v at the earliest: its work must run again within 15 s", period)
	}
}

// loss is a node declared lost, and when since the start.
type loss struct {
	node sheaf.NodeID
	at   time.Duration
}

// watch runs w until the test ends and gives its losses.
func watch(t *testing.T, w *liveness.Watch, refuse int) <-chan loss {
	start := time.Now()
	losses := make(chan loss, 16)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = w.Run(ctx, func(_ context.Context, n sheaf.NodeID) error {
			if refuse--; refuse >= 0 {
				return errors.New("no quorum")
			}
			losses <- loss{n, time.Since(start)}
			return nil
		})
	}()
	t.Cleanup(func() { cancel(); <-done })
	return losses
}

func TestNewLeaderGrantsAFullPeriod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		losses := watch(t, liveness.NewWatch([]sheaf.NodeID{"a"}, liveness.Lease+liveness.Grace), 0)
		if l := <-losses; l != (loss{"a", period}) {
			t.Errorf("lost %+v, want a after %v", l, period)
		}
	})
}

func TestRenewedNodesStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := liveness.NewWatch([]sheaf.NodeID{"a", "b"}, liveness.Lease+liveness.Grace)
		losses := watch(t, w, 0)
		for range 20 {
			time.Sleep(liveness.Lease / 3)
			w.Renew("a", time.Now())
		}
		synctest.Wait()
		if len(losses) != 1 || (<-losses).node != "b" {
			t.Fatal("want b lost, and a not while it is renewed")
		}
		last := 20 * (liveness.Lease / 3)
		if l := <-losses; l != (loss{"a", last + period}) {
			t.Errorf("lost %+v, want a a period after its last lease", l)
		}
		// A node that comes to an empty table is watched again.
		w.Renew("c", time.Now())
		if l := <-losses; l.node != "c" {
			t.Errorf("lost %+v, want c", l)
		}
	})
}

func TestLossIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		losses := watch(t, liveness.NewWatch([]sheaf.NodeID{"a"}, liveness.Lease+liveness.Grace), 3)
		if l := <-losses; l != (loss{"a", period + 3*time.Second}) {
			t.Errorf("lost %+v, want a after three refusals", l)
		}
	})
}
