package state

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/go-memdb"

	"github.com/sheaf-run/agent/sheaf"
)

// Complete reports whether the run's result can be an input of another: it succeeded and is merged.
func (r *Run) Complete() bool { return r.Status == sheaf.RunSucceeded && r.Result.Sealed }

// pin has the job name the runs whose results it reads, as [Run.Reads] has them, in place of their
// jobs. The job must be this run's alone.
func (r *Run) pin() {
	next := 0
	for i := range r.Job.Inputs {
		in := &r.Job.Inputs[i]
		if _, output, ok := sheaf.CutResult(in.Source); ok && next < len(r.Reads) {
			in.Source = sheaf.ResultURL(string(r.Reads[next]), output)
			next++
		}
	}
}

// SpecJSON is the job as clients get it: as submitted, with the results that it reads pinned.
func (r *Run) SpecJSON() []byte {
	if len(r.Reads) == 0 {
		return r.JobJSON
	}
	b, err := json.Marshal(r.Job)
	must(err) // it was read of JSON
	return b
}

// Pin pins the results that the run's job reads to runs. Those that it comes after may still be under way; all
// others must be complete. An error says which input names what is not there.
func (t *Txn) Pin(r *Run) error {
	after := make([]*Run, 0, len(r.After))
	for _, id := range r.After {
		after = append(after, t.Peek(id))
	}
	reads, err := pins(t.mem, r.Job, after)
	if err != nil {
		return err
	}
	r.Reads = reads
	r.pin()
	return nil
}

// Pinned is the job with the results that it reads pinned as a submission would now.
func (s *Snapshot) Pinned(job sheaf.Job) (sheaf.Job, []sheaf.RunID, error) {
	mem := s.db.Txn(false)
	var after []*Run
	for _, name := range job.After {
		before := s.Run(sheaf.RunID(name))
		if before == nil || before.Job.Namespace != job.Namespace {
			before = s.LatestRun(job.Namespace, name)
		}
		if before != nil {
			after = append(after, before)
		}
	}
	reads, err := pins(mem, &job, after)
	if err != nil || len(reads) == 0 {
		return job, nil, err
	}
	job.Inputs = slices.Clone(job.Inputs)
	(&Run{Job: &job, Reads: reads}).pin()
	return job, reads, nil
}

// pins are the runs whose results a job reads, in the order of its inputs.
func pins(mem *memdb.Txn, job *sheaf.Job, after []*Run) ([]sheaf.RunID, error) {
	var reads []sheaf.RunID
	for i, in := range job.Inputs {
		of, output, ok := sheaf.CutResult(in.Source)
		if !ok {
			continue
		}
		r, err := resultOf(mem, job.Namespace, of, after)
		if err == nil {
			err = hasOutput(r, output)
		}
		if err != nil {
			err.Field = fmt.Sprintf("inputs[%d].source", i)
			return nil, err
		}
		reads = append(reads, r.ID)
	}
	return reads, nil
}

// resultOf is the run meant by a name: one that the job comes after, else a run of that ID, else the newest complete
// one of the job of that name.
func resultOf(mem *memdb.Txn, namespace, of string, after []*Run) (*Run, *sheaf.Error) {
	for _, r := range after {
		if r != nil && (string(r.ID) == of || r.Job.Name == of) {
			return r, nil
		}
	}
	row, err := mem.First(tableRuns, byID, nameKey(sheaf.RunID(of)))
	must(err)
	if r, _ := row.(*Run); r != nil && r.Job.Namespace == namespace {
		if !r.Complete() && len(r.Job.Results()) > 0 {
			return nil, &sheaf.Error{Class: sheaf.Invalid, Msg: fmt.Sprintf("run %s has no complete result: it is %s", r.ID, r.Status), Hint: "wait for it, or name it in after"}
		}
		return r, nil
	}
	it, err := mem.GetReverse(tableRuns, byJob+"_prefix", jobKey(namespace, of))
	must(err)
	var latest *Run
	for row := it.Next(); row != nil; row = it.Next() {
		r := row.(*Run)
		if r.Complete() {
			return r, nil
		}
		if latest == nil {
			latest = r
		}
	}
	if latest != nil && len(latest.Job.Results()) == 0 {
		return latest, nil // which has nothing to be read
	}
	if latest != nil {
		return nil, &sheaf.Error{Class: sheaf.Invalid, Msg: fmt.Sprintf("job %q has no complete result yet: its latest run, %s, is %s", of, latest.ID, latest.Status), Hint: fmt.Sprintf("wait for it, or write after = [%q]", of)}
	}
	return nil, &sheaf.Error{Class: sheaf.Invalid, Msg: fmt.Sprintf("there is no run or job %q in namespace %q whose result could be read", of, namespace), Hint: "run that job first"}
}

func hasOutput(r *Run, output string) *sheaf.Error {
	var names []string
	for _, o := range r.Job.Results() {
		if o.Name == output {
			return nil
		}
		names = append(names, fmt.Sprintf("%q", o.Name))
	}
	e := &sheaf.Error{Class: sheaf.Invalid, Msg: fmt.Sprintf("run %s of job %q has no output %q", r.ID, r.Job.Name, output), Hint: "it has " + strings.Join(names, ", ")}
	if len(names) == 0 {
		e.Hint = "it has none: give it an output block"
	}
	return e
}

// Readers are the runs that are not over and read the results of others, by the ID of the run that is read.
func (t *Txn) Readers() map[sheaf.RunID]sheaf.RunID {
	it, err := t.mem.Get(tableRuns, byLive+"_prefix", []byte(nil))
	must(err)
	var readers map[sheaf.RunID]sheaf.RunID
	for row := it.Next(); row != nil; row = it.Next() {
		r := row.(*Run)
		for _, id := range r.Reads {
			if readers == nil {
				readers = map[sheaf.RunID]sheaf.RunID{}
			}
			readers[id] = r.ID
		}
	}
	return readers
}

// read are the runs whose results are read by runs that are not over.
func (s *Snapshot) read() map[sheaf.RunID]bool {
	read := map[sheaf.RunID]bool{}
	for r := range s.LiveRuns() {
		for _, id := range r.Reads {
			read[id] = true
		}
	}
	return read
}

// MayRead reports whether a node executes something of a run that reads the result of another.
func (s *Snapshot) MayRead(node uint32, of sheaf.RunID) bool {
	for r := range s.LiveRuns() {
		if slices.Contains(r.Reads, of) && s.AssignedOn(r, node) > 0 {
			return true
		}
	}
	return false
}
