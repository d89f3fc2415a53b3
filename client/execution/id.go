package execution

import (
	"strconv"
	"strings"

	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/sheaf"
)

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
