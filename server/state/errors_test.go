package state_test

import (
	"crypto/sha256"
	"fmt"
	"testing"

	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/server/state/table"
	"github.com/sheaf-run/agent/sheaf"
)

func digest(b []byte) table.Digest { return table.Digest(sha256.Sum256(b)) }

// errorsOf applies f to a fresh run and gives its failures.
func errorsOf(t *testing.T, f func(r *state.RunTxn)) []state.ErrorEntry {
	t.Helper()
	s := filled(t, &state.MemoryChunks{}, 1)
	x := s.Begin(20, 0)
	r := x.Run("r0")
	r.ForgetErrors()
	f(r)
	x.Commit()
	if e := s.Snapshot().Run("r0").Errors; e != nil {
		return e.Groups
	}
	return nil
}

func TestFailuresAreGroupedByCause(t *testing.T) {
	exit := func(code int32, message string) state.ErrorItem {
		return state.ErrorItem{Kind: sheaf.FailExit, ExitCode: code, Message: message, Stderr: "of " + message}
	}
	groups := errorsOf(t, func(r *state.RunTxn) {
		for i := range 10 {
			r.Failed(i, exit(1, fmt.Sprintf("cannot read part-%04d", i)))
		}
		r.Failed(20, exit(2, "other"))
		r.Failed(3, exit(2, "other")) // its next try fails otherwise
		r.Succeeded(5)
	})
	if len(groups) != 2 {
		t.Fatalf("%d groups: %+v", len(groups), groups)
	}
	if g := groups[0].Group; g.Count != 8 || g.Partitions.String() != "0-2,4,6-9" || *g.ExitCode != 1 || g.Message != "cannot read part-0000" || g.Example == "" {
		t.Errorf("%+v", g)
	}
	if g := groups[1].Group; g.Count != 2 || g.Partitions.String() != "3,20" {
		t.Errorf("%+v", g)
	}
}

func TestFailuresAreBounded(t *testing.T) {
	groups := errorsOf(t, func(r *state.RunTxn) {
		for i := range 300 {
			r.Failed(i, state.ErrorItem{Kind: sheaf.FailExit, ExitCode: int32(i % 50), Message: string(rune('a' + i%50)), Stderr: "x"})
		}
	})
	if len(groups) != state.MaxErrorGroups {
		t.Fatalf("%d groups", len(groups))
	}
	n := 0
	for _, g := range groups {
		n += g.Group.Count
	}
	if n != 300 {
		t.Errorf("they count %d failures of 300", n)
	}

	groups = errorsOf(t, func(r *state.RunTxn) {
		for i := range 2000 {
			r.Failed(3*i, state.ErrorItem{Kind: sheaf.FailMemory, ExitCode: -1, Message: "over its memory"})
		}
	})
	if g := groups[0].Group; len(g.Partitions) > state.MaxErrorRanges || g.Count != 2000 || g.ExitCode != nil {
		t.Errorf("%d ranges, %d failures", len(g.Partitions), g.Count)
	}
}

func TestFailuresAllForgiven(t *testing.T) {
	if groups := errorsOf(t, func(r *state.RunTxn) {
		r.Failed(1, state.ErrorItem{Kind: sheaf.FailExit, Message: "no"})
		r.Succeeded(1)
	}); len(groups) != 0 {
		t.Errorf("%+v", groups)
	}
}
