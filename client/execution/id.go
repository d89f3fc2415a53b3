package execution

import (
	"strconv"
	"strings"

	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/sheaf"
)

// reduceMark ends the core's ID of a run's reduce: no run's own ID has the sign, and every file name may.
const reduceMark = "+reduce"

// RunKey is the ID under which the core has what a run's executions of a kind share. A reduce has a task of its
// own, so that it is a run of its own here.
func RunKey(run sheaf.RunID, kind wire.Kind) sheaf.RunID {
	if kind == wire.Kind_KIND_REDUCE {
		return run + reduceMark
	}
	return run
}

// Of is the run that r belongs to, as the servers know it.
func (r *Run) Of() sheaf.RunID { return sheaf.RunID(strings.TrimSuffix(string(r.ID), reduceMark)) }

// Kind is what r's executions do.
func (r *Run) Kind() wire.Kind {
	if strings.HasSuffix(string(r.ID), reduceMark) {
		return wire.Kind_KIND_REDUCE
	}
	return wire.Kind_KIND_PARTITION
}

// ParseID reads an ID of sheaf.NewExecutionID. A run's ID may hold dots itself.
func ParseID(id string) (run sheaf.RunID, partition, attempt uint32, ok bool) {
	j := strings.LastIndexByte(id, '.')
	if j < 0 {
		return "", 0, 0, false
	}
	i := strings.LastIndexByte(id[:j], '.')
	if i < 1 {
		return "", 0, 0, false
	}
	p, err := strconv.ParseUint(id[i+1:j], 10, 32)
	if err != nil {
		return "", 0, 0, false
	}
	a, err := strconv.ParseUint(id[j+1:], 10, 32)
	if err != nil {
		return "", 0, 0, false
	}
	return sheaf.RunID(id[:i]), uint32(p), uint32(a), true
}

// ownID names a split or merge where people read it; no driver sees it.
func ownID(run sheaf.RunID, kind wire.Kind, attempt uint32) string {
	what := "split"
	if kind == wire.Kind_KIND_MERGE {
		what = "merge"
	}
	return string(run) + "." + what + "." + strconv.FormatUint(uint64(attempt), 10)
}
