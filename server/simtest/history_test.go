package simtest

import (
	"testing"

	"github.com/anishathalye/porcupine"

	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/sheaf"
)

// TestModelRefusesWhatMayNotBe holds the model of a partition against short
// histories of which one can see what is wrong.
func TestModelRefusesWhatMayNotBe(t *testing.T) {
	place := func(at int64, attempt uint32) porcupine.Operation {
		return porcupine.Operation{Input: step{what: "place", attempt: attempt}, Output: wire.Verdict_VERDICT_UNKNOWN, Call: at, Return: at}
	}
	end := func(at int64, attempt uint32) porcupine.Operation {
		return porcupine.Operation{Input: step{what: "end", attempt: attempt}, Output: wire.Verdict_VERDICT_UNKNOWN, Call: at, Return: at}
	}
	commit := func(call, ret int64, attempt uint32, v wire.Verdict) porcupine.Operation {
		return porcupine.Operation{Input: step{what: "commit", attempt: attempt, outcome: sheaf.OutcomeSucceeded}, Output: v, Call: call, Return: ret}
	}
	const (
		committed  = wire.Verdict_VERDICT_COMMITTED
		already    = wire.Verdict_VERDICT_ALREADY
		superseded = wire.Verdict_VERDICT_SUPERSEDED
	)
	for _, c := range []struct {
		name string
		ops  []porcupine.Operation
		ok   bool
	}{
		{"once", []porcupine.Operation{place(1, 1), commit(2, 4, 1, committed), commit(3, 6, 1, already)}, true},
		{"already before it was committed", []porcupine.Operation{place(1, 1), commit(2, 3, 1, already), commit(4, 5, 1, committed)}, false},
		{"both, of a partition and its backup", []porcupine.Operation{place(1, 1), place(2, 2), commit(3, 5, 1, committed), commit(4, 6, 2, committed)}, false},
		{"the backup only", []porcupine.Operation{place(1, 1), place(2, 2), commit(3, 5, 1, superseded), commit(3, 6, 2, committed)}, true},
		{"an attempt that has ended", []porcupine.Operation{place(1, 1), end(2, 1), place(3, 2), commit(4, 5, 1, committed)}, false},
		{"an attempt that ends meanwhile", []porcupine.Operation{place(1, 1), commit(2, 9, 1, superseded), end(5, 1), place(6, 2)}, true},
		{"an attempt below the last", []porcupine.Operation{place(1, 2), end(2, 2), place(3, 3), place(4, 1)}, false},
	} {
		if ok := porcupine.CheckOperations(model, c.ops); ok != c.ok {
			t.Errorf("%s: %v", c.name, ok)
		}
	}
}
