package httpapi

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/sheaf-run/agent/internal/acl"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/sheaf"
)

// Bounds of a blocking read.
const (
	defaultWait = time.Minute
	maxWait     = 10 * time.Minute
)

// ReadParams are the query parameters that every read understands.
type ReadParams struct {
	Index string `query:"index" doc:"answer once the state is past this index"`
	Wait  string `query:"wait" doc:"at most so long, 60s unless told, 10m at most"`
	Stale bool   `query:"stale" doc:"any server may answer from what it has"`
}

// ReadHeaders tell how fresh a reply is.
type ReadHeaders struct {
	Index       string `header:"X-Sheaf-Index"`
	KnownLeader string `header:"X-Sheaf-KnownLeader"`
	LastContact string `header:"X-Sheaf-LastContact"`
	NextToken   string `header:"X-Sheaf-NextToken"`
}

func (p ReadParams) parse() (index uint64, wait time.Duration, err error) {
	wait = defaultWait
	if p.Index != "" {
		if index, err = strconv.ParseUint(p.Index, 10, 64); err != nil {
			return 0, 0, &sheaf.Error{Class: sheaf.Invalid, Field: "index", Msg: fmt.Sprintf("index %q is no whole number from 0", p.Index), Limit: "18446744073709551615"}
		}
	}
	if p.Wait != "" {
		if wait, err = time.ParseDuration(p.Wait); err != nil || wait < 0 || wait > maxWait {
			return 0, 0, &sheaf.Error{Class: sheaf.Invalid, Field: "wait", Msg: fmt.Sprintf("wait %q is out of range", p.Wait), Limit: maxWait.String(), Hint: `write it as in "60s"`}
		}
	}
	return index, wait, nil
}

// view gives a snapshot for a read: one that holds everything acknowledged, or with stale
// whatever is here. With an index it waits until look reports a higher one;
// look gives the index of what is read and a channel that closes when that changes.
func (a *API) view(ctx context.Context, p ReadParams, look func(*state.Snapshot) (index uint64, changed <-chan struct{})) (*state.Snapshot, ReadHeaders, error) {
	after, wait, err := p.parse()
	if err != nil {
		return nil, ReadHeaders{}, err
	}
	if !p.Stale {
		if err := a.Server.VerifyRead(ctx); err != nil {
			return nil, ReadHeaders{}, err
		}
	}
	snap := a.Server.Snapshot()
	index, changed := look(snap)
	if after > 0 && index <= after {
		release, err := a.waits.take()
		if err != nil {
			return nil, ReadHeaders{}, err
		}
		defer release()
		timer := time.NewTimer(wait)
		defer timer.Stop()
	waiting:
		for index <= after {
			select {
			case <-changed:
			case <-snap.Abandoned():
			case <-timer.C:
				break waiting
			case <-ctx.Done():
				return nil, ReadHeaders{}, ctx.Err()
			}
			snap = a.Server.Snapshot()
			index, changed = look(snap)
		}
	}
	leader, _ := a.Server.Leader()
	return snap, ReadHeaders{
		Index: strconv.FormatUint(index, 10), KnownLeader: strconv.FormatBool(leader != ""),
		LastContact: strconv.FormatInt(a.Server.LastContact().Milliseconds(), 10),
	}, nil
}

// ofRuns looks at the runs of a namespace, or of all with "*".
func ofRuns(namespace string) func(*state.Snapshot) (uint64, <-chan struct{}) {
	return func(s *state.Snapshot) (uint64, <-chan struct{}) { return s.WatchRunsOf(namespace) }
}

// ofNodes looks at all nodes.
func ofNodes(s *state.Snapshot) (uint64, <-chan struct{}) { return s.WatchNodeTable() }

// ofRun looks at one run, by its ID.
func ofRun(id sheaf.RunID) func(*state.Snapshot) (uint64, <-chan struct{}) {
	return func(s *state.Snapshot) (uint64, <-chan struct{}) {
		r, ch := s.WatchRun(id)
		if r == nil {
			return s.Index(), ch
		}
		return r.Modified, ch
	}
}

// findRun resolves what a person calls a run: its ID, a unique prefix of it, or its
// job's name, which means the latest run. Runs that the caller may not read are
// as if they were not there.
func findRun(s *state.Snapshot, namespace, ref string, who *acl.ACL) (*state.Run, error) {
	namespace = orDefault(namespace)
	missing := &sheaf.Error{Class: sheaf.NotFound, Field: "job", Msg: fmt.Sprintf("no run or job is called %q", ref), Hint: "`agent job list` shows what there is"}
	if !who.Allows(acl.ReadJobs, namespace) {
		return nil, missing
	}
	if r := s.Run(sheaf.RunID(ref)); r != nil && r.Job.Namespace == namespace {
		return r, nil
	}
	if r := s.LatestRun(namespace, ref); r != nil {
		return r, nil
	}
	var found []*state.Run
	if ref != "" {
		for r := range s.RunsWithPrefix(ref) {
			if r.Job.Namespace == namespace {
				found = append(found, r)
			}
			if len(found) > 3 {
				break
			}
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return nil, missing
	}
	var ids []string
	for _, r := range found {
		ids = append(ids, string(r.ID))
	}
	return nil, &sheaf.Error{Class: sheaf.Conflict, Field: "job", Msg: fmt.Sprintf("%q begins more than one run: %s", ref, strings.Join(ids, ", ")), Hint: "give more of the ID"}
}
