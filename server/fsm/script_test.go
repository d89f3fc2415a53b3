package fsm_test

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/server/fsm"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/sheaf"
)

// script applies commands written as lines of text, and says what came of them.
//
//	node N [boot=B]                register
//	joined N                       the session is reconciled
//	lost N · eligible N true|false
//	job R [count=3] [attempts=3] [tolerate=0] [stop_after=1] [timeout=10s] [delay=0s] [exit=2:fail_job] [split] [allow_empty] [outputs] [publish]
//	      [held] [rerun] [reuse] [env=V] [ops] [only=NODES] [after=R,…] [reads=NAME/OUTPUT,…] [parallelism=N] [coefficient=N]
//	place R N 0-2 [backup] · split R N · merge R N
//	result R N[@SESSION] 0@1=ok 1@1=exit:2 2@1=lost 3@1=prepare [kind=split|merge]
//	free N R 0@1 … · gone N R 0@1 …  release
//	cancel R · retry R failed|lost|1,3-4 · invalidate R 0@1 …
//	chunk R N ATTEMPT SEQ FIRST COUNT [TEXT] · seal R N ATTEMPT CHUNKS PARTITIONS
//	sealed R N ATTEMPT [TEXT [CID]]  seal the result · published R N ATTEMPT [TEXT]
//	secret put|grant|reseal|delete NAMESPACE NAME [SEALED] [JOB…]  grant takes no value
//	prepare-failed R N [invalid] · image R DIGEST · delete R · reap R
//	change R [held=true|false] [priority=N] [parallelism=N]
//	autopilot MIN_QUORUM [INDEX]   other settings as by default, but cleanup off
//	adopt R ATTEMPT [more] SOURCE:0-2=4 …  partitions 0-2 of R as SOURCE made 4-6; without more it is done
//	conflict R OUTPUT PATH 0 1 [other] of what the two partitions have committed, or of other outputs
//	drain N [10s] · drained N · undrain N · purge N [force] · move R FROM TO result=ATTEMPT|0@1 …
//	lacking R 0@1 …                note that outputs of a run that is over are lost
//	acl bootstrap A [RESET] · acl policy NAME RULES · acl token A management|POLICY,… [+1s] · acl delete-policy|delete-token NAME · acl reap
//	namespace put|delete NAME [DESCRIPTION]
//	time +1s · show R · nodes · settings · access
type script struct {
	t     *testing.T
	m     *fsm.Machine
	index uint64
	ms    int64
	entry func([]byte) // unless nil, is shown every entry of the log
}

func newScript(t *testing.T) *script {
	return &script{t: t, m: fsm.New(state.New(&state.MemoryChunks{})), ms: 1_000_000}
}

func (s *script) snap() *state.Snapshot { return s.m.Store().Snapshot() }

func (s *script) apply(c *fsm.Command) fsm.Reply {
	s.t.Helper()
	c.TimeMs = s.ms
	b, err := fsm.Encode(c)
	if err != nil {
		s.t.Fatal(err)
	}
	if s.entry != nil {
		s.entry(b)
	}
	s.index++
	r, err := s.m.Apply(s.index, b)
	if err != nil {
		s.t.Fatalf("the machine halted: %v", err)
	}
	return r
}

// line runs one line.
func (s *script) line(line string) string {
	s.t.Helper()
	f := strings.Fields(line)
	arg := func(i int) string {
		if i < len(f) {
			return f[i]
		}
		return ""
	}
	switch f[0] {
	case "time":
		d, err := time.ParseDuration(strings.TrimPrefix(arg(1), "+"))
		if err != nil {
			s.t.Fatal(err)
		}
		s.ms += d.Milliseconds()
		return said(s.apply(&fsm.Command{Body: &fsm.Command_AdvanceTime{AdvanceTime: &fsm.AdvanceTime{}}}))
	case "show":
		return s.show(arg(1))
	case "secrets":
		var b strings.Builder
		for x := range s.snap().Secrets() {
			fmt.Fprintf(&b, "%s/%s %s version=%d jobs=%s\n", x.Namespace, x.Name, x.Sealed, x.Version, strings.Join(x.Jobs, ","))
		}
		return b.String()
	case "settings":
		return fmt.Sprintf("%+v\n", s.snap().Operator())
	case "access":
		return s.access()
	case "nodes":
		var b strings.Builder
		for n := range s.snap().Nodes() {
			fmt.Fprintf(&b, "%s %s session=%d joined=%v eligible=%v%s\n", n.ID, n.Status, n.Session, n.Joined, n.Eligible, drainOf(n))
		}
		return b.String()
	}
	return said(s.apply(s.command(f, arg)))
}

func (s *script) command(f []string, arg func(int) string) *fsm.Command {
	switch f[0] {
	case "node":
		boot := strings.TrimPrefix(arg(2), "boot=")
		return &fsm.Command{Body: &fsm.Command_RegisterNode{RegisterNode: &fsm.RegisterNode{BootId: boot,
			NodeJson: fmt.Appendf(nil, `{"id":%q,"name":%q,"drivers":[{"name":"mock","healthy":true}]}`, arg(1), arg(1))}}}
	case "joined":
		return &fsm.Command{Body: &fsm.Command_Release{Release: &fsm.Release{Node: arg(1), Session: s.session(arg(1)), Reconciled: true}}}
	case "free", "gone":
		r := &fsm.Release{Node: arg(1), Session: s.session(arg(1))}
		if f[0] == "free" {
			r.Free = executions(arg(2), f[3:])
		} else {
			r.Lost = executions(arg(2), f[3:])
		}
		return &fsm.Command{Body: &fsm.Command_Release{Release: r}}
	case "lost":
		return &fsm.Command{Body: &fsm.Command_NodeLost{NodeLost: &fsm.NodeLost{Node: arg(1), Session: s.session(arg(1))}}}
	case "eligible":
		return &fsm.Command{Body: &fsm.Command_SetNodeEligibility{SetNodeEligibility: &fsm.SetNodeEligibility{Node: arg(1), Eligible: arg(2) == "true"}}}
	case "job":
		return &fsm.Command{Body: &fsm.Command_RegisterJob{RegisterJob: &fsm.RegisterJob{Run: arg(1), JobJson: jobJSON(s.t, f[2:]), Held: slices.Contains(f, "held"), Rerun: slices.Contains(f, "rerun")}}}
	case "place", "split", "merge", "reduce":
		p := &fsm.Placement{Run: arg(1), Node: arg(2), Session: s.session(arg(2)), Backup: arg(4) == "backup"}
		p.Kind = map[string]wire.Kind{"place": wire.Kind_KIND_PARTITION, "split": wire.Kind_KIND_SPLIT, "merge": wire.Kind_KIND_MERGE, "reduce": wire.Kind_KIND_REDUCE}[f[0]]
		if f[0] == "place" {
			p.First, p.Count = ranges(s.t, arg(3))
		}
		return &fsm.Command{Body: &fsm.Command_ApplyPlan{ApplyPlan: &fsm.ApplyPlan{Placements: []*fsm.Placement{p}}}}
	case "result":
		return &fsm.Command{Body: &fsm.Command_CommitPartitions{CommitPartitions: &fsm.CommitPartitions{Results: []*wire.Results{s.results(f[1:])}}}}
	case "cancel":
		return &fsm.Command{Body: &fsm.Command_CancelRun{CancelRun: &fsm.CancelRun{Run: arg(1)}}}
	case "retry":
		r := &fsm.RetryRun{Run: arg(1)}
		switch arg(2) {
		case "failed":
		case "lost":
			r.Which = fsm.RetryRun_WHICH_LOST
		default:
			r.Which = fsm.RetryRun_WHICH_PARTITIONS
			r.First, r.Count = ranges(s.t, arg(2))
		}
		return &fsm.Command{Body: &fsm.Command_RetryRun{RetryRun: r}}
	case "adopt":
		return &fsm.Command{Body: &fsm.Command_AdoptOutputs{AdoptOutputs: adoption(s.t, f)}}
	case "conflict":
		return &fsm.Command{Body: &fsm.Command_NoteConflict{NoteConflict: s.conflict(f)}}
	case "invalidate":
		return &fsm.Command{Body: &fsm.Command_InvalidateOutput{InvalidateOutput: &fsm.InvalidateOutput{Outputs: executions(arg(1), f[2:])[0]}}}
	case "lacking":
		return &fsm.Command{Body: &fsm.Command_InvalidateOutput{InvalidateOutput: &fsm.InvalidateOutput{Note: true, Outputs: executions(arg(1), f[2:])[0]}}}
	case "chunk":
		return &fsm.Command{Body: &fsm.Command_PutChunk{PutChunk: &fsm.PutChunk{Chunk: &wire.ManifestChunk{Run: arg(1), Node: arg(2), Session: s.session(arg(2)),
			SplitAttempt: number(arg(3)), Sequence: number(arg(4)), First: number(arg(5)), Count: number(arg(6)), Data: text(arg(7), arg(4))}}}}
	case "seal": // what is written after the partitions are the large ones
		var large []uint32
		for i := range f[min(len(f), 6):] {
			large = append(large, number(arg(6+i)))
		}
		return &fsm.Command{Body: &fsm.Command_SealManifest{SealManifest: &fsm.SealManifest{Seal: &wire.ManifestSeal{Run: arg(1), Node: arg(2), Session: s.session(arg(2)),
			SplitAttempt: number(arg(3)), Chunks: number(arg(4)), Partitions: number(arg(5)), Root: s.root(arg(4)), Largest: large}}}}
	case "sealed", "published":
		d := sha256.Sum256([]byte(arg(4)))
		k := &wire.SealResultRequest{Run: arg(1), Node: arg(2), Session: s.session(arg(2)), MergeAttempt: number(arg(3)), Digest: d[:], Files: 1, Bytes: 2, Root: arg(5)}
		if r := s.snap().Run(sheaf.RunID(arg(1))); f[0] == "published" && r != nil {
			k.Published, k.Generation = true, r.Generation
		}
		return &fsm.Command{Body: &fsm.Command_SealResult{SealResult: &fsm.SealResult{Request: k}}}
	case "acl":
		return &fsm.Command{Body: &fsm.Command_WriteAcl{WriteAcl: s.writeACL(f[1:])}}
	case "namespace":
		return &fsm.Command{Body: &fsm.Command_WriteNamespace{WriteNamespace: &fsm.WriteNamespace{Name: arg(2), Description: strings.Join(f[min(len(f), 3):], " "), Delete: arg(1) == "delete"}}}
	case "secret":
		what := map[string]fsm.WriteSecret_What{"put": fsm.WriteSecret_WHAT_PUT, "grant": fsm.WriteSecret_WHAT_GRANT, "reseal": fsm.WriteSecret_WHAT_RESEAL, "delete": fsm.WriteSecret_WHAT_DELETE}[arg(1)]
		w := &fsm.WriteSecret{What: what, Namespace: arg(2), Name: arg(3)}
		rest := f[4:]
		if what == fsm.WriteSecret_WHAT_PUT || what == fsm.WriteSecret_WHAT_RESEAL {
			w.Sealed, rest = []byte(arg(4)), f[min(len(f), 5):]
		}
		if x := s.snap().Secret(arg(2), arg(3)); what == fsm.WriteSecret_WHAT_RESEAL && x != nil {
			w.Version = x.Version
			if len(rest) > 0 {
				w.Version, rest = uint64(number(rest[0])), nil
			}
		}
		w.Jobs = rest
		return &fsm.Command{Body: &fsm.Command_WriteSecret{WriteSecret: w}}
	case "prepare-failed":
		return &fsm.Command{Body: &fsm.Command_NodePrepareFailed{NodePrepareFailed: &fsm.NodePrepareFailed{Run: arg(1), Node: arg(2), Session: s.session(arg(2)), Error: "no such image", Invalid: arg(3) == "invalid"}}}
	case "image":
		return &fsm.Command{Body: &fsm.Command_SetImageDigest{SetImageDigest: &fsm.SetImageDigest{Run: arg(1), Digest: arg(2)}}}
	case "delete":
		return &fsm.Command{Body: &fsm.Command_DeleteRun{DeleteRun: &fsm.DeleteRun{Run: arg(1), More: f[min(2, len(f)):]}}}
	case "reap":
		return &fsm.Command{Body: &fsm.Command_ReapRuns{ReapRuns: &fsm.ReapRuns{Runs: f[1:]}}}
	case "autopilot":
		a := sheaf.DefaultAutopilot()
		a.CleanupDeadServers, a.MinQuorum = false, number(arg(1))
		index := uint32(0)
		if arg(2) != "" {
			index = number(arg(2))
		}
		return fsm.NewSetOperator(a, uint64(index))
	case "change":
		c := &fsm.ChangeRun{Run: arg(1)}
		for _, x := range f[2:] {
			name, value, _ := strings.Cut(x, "=")
			if name == "held" {
				held := value == "true"
				c.Held = &held
				continue
			}
			n := number(value)
			switch name {
			case "priority":
				c.Priority = &n
			case "parallelism":
				c.Parallelism = &n
			default:
				s.t.Fatalf("no change %q", name)
			}
		}
		return &fsm.Command{Body: &fsm.Command_ChangeRun{ChangeRun: c}}
	case "drain":
		c := &fsm.ChangeNode_Drain{}
		if arg(2) != "" {
			d, err := time.ParseDuration(arg(2))
			if err != nil {
				s.t.Fatal(err)
			}
			c.DeadlineMs = s.ms + d.Milliseconds()
		}
		return &fsm.Command{Body: &fsm.Command_ChangeNode{ChangeNode: &fsm.ChangeNode{Node: arg(1), Change: &fsm.ChangeNode_Drain_{Drain: c}}}}
	case "drained", "undrain":
		c := &fsm.ChangeNode_EndDrain{Cancel: f[0] == "undrain"}
		return &fsm.Command{Body: &fsm.Command_ChangeNode{ChangeNode: &fsm.ChangeNode{Node: arg(1), Change: &fsm.ChangeNode_EndDrain_{EndDrain: c}}}}
	case "tell":
		c := &fsm.ChangeNode_Tell{Avoided: true, Reason: "too much fails there"}
		return &fsm.Command{Body: &fsm.Command_ChangeNode{ChangeNode: &fsm.ChangeNode{Node: arg(1), Change: &fsm.ChangeNode_Tell_{Tell: c}}}}
	case "purge":
		c := &fsm.ChangeNode_Purge{Force: arg(2) == "force"}
		return &fsm.Command{Body: &fsm.Command_ChangeNode{ChangeNode: &fsm.ChangeNode{Node: arg(1), Change: &fsm.ChangeNode_Purge_{Purge: c}}}}
	case "move":
		m := &fsm.MoveOutputs{From: arg(2), To: arg(3), Outputs: &wire.Executions{Run: arg(1)}}
		for _, x := range f[4:] {
			if a, ok := strings.CutPrefix(x, "result="); ok {
				m.MergeAttempt = number(a)
				continue
			}
			m.Outputs = executions(arg(1), append([]string(nil), f[4:]...))[0]
			break
		}
		return &fsm.Command{Body: &fsm.Command_MoveOutputs{MoveOutputs: m}}
	case "bootstrap":
		return &fsm.Command{Body: &fsm.Command_Bootstrap{Bootstrap: &fsm.Bootstrap{ClusterId: arg(1), Region: arg(2)}}}
	}
	s.t.Fatalf("no command %q", f[0])
	return nil
}

func (s *script) session(node string) uint64 {
	if n := s.snap().Node(sheaf.NodeID(node)); n != nil {
		return n.Session
	}
	return 0
}

func drainOf(n *state.Node) string {
	switch d := n.Drain; {
	case d == nil:
		return ""
	case d.Done != nil:
		return " drained"
	case d.Deadline != nil:
		return fmt.Sprintf(" draining until +%v", d.Deadline.Sub(d.Began))
	}
	return " draining"
}

// root is the root of chunks whose content is their number.
func (s *script) root(chunks string) []byte {
	h := sha256.New()
	for i := range number(chunks) {
		d := sha256.Sum256(text("", strconv.Itoa(int(i))))
		h.Write(d[:])
	}
	return h.Sum(nil)
}

func (s *script) results(f []string) *wire.Results {
	node, session, old := strings.Cut(f[1], "@")
	x := &wire.Results{Run: f[0], Node: node, Session: s.session(node)}
	if old {
		x.Session = uint64(number(session))
	}
	for _, item := range f[2:] {
		if k, ok := strings.CutPrefix(item, "kind="); ok {
			x.Kind = map[string]wire.Kind{"split": wire.Kind_KIND_SPLIT, "merge": wire.Kind_KIND_MERGE, "reduce": wire.Kind_KIND_REDUCE}[k]
			continue
		}
		name, outcome, _ := strings.Cut(item, "=")
		p, a, _ := strings.Cut(name, "@")
		kind, code, _ := strings.Cut(outcome, ":")
		o, failure, exit, digest := sheaf.OutcomeSucceeded, sheaf.FailNone, int32(0), sha256.Sum256([]byte(name))
		switch kind {
		case "ok":
		case "lost":
			o, exit = sheaf.OutcomeLost, -1
		case "exit":
			o, failure, exit = sheaf.OutcomeFailed, sheaf.FailExit, int32(number(code))
		case "prepare":
			o, failure, exit = sheaf.OutcomeFailed, sheaf.FailPrepare, -1
		case "stage":
			o, failure, exit = sheaf.OutcomeFailed, sheaf.FailStage, -1
		case "output":
			o, failure, exit = sheaf.OutcomeFailed, sheaf.FailOutput, -1
		case "driver":
			o, failure, exit = sheaf.OutcomeFailed, sheaf.FailDriver, -1
		default:
			s.t.Fatalf("no outcome %q", kind)
		}
		if o == sheaf.OutcomeFailed {
			digest = [32]byte{}
			message := "it did not work"
			if failure == sheaf.FailExit {
				message = "exit code " + code
			}
			x.Text = append(x.Text, &wire.Text{Item: uint32(len(x.Partition)), Message: message, Stderr: "begin\nsorry, " + p + "\n"})
		}
		x.Partition = append(x.Partition, number(p))
		x.Attempt = append(x.Attempt, number(a))
		x.Outcome = append(x.Outcome, byte(o))
		x.Failure = append(x.Failure, byte(failure))
		x.ExitCode = append(x.ExitCode, exit)
		x.StartedMs = append(x.StartedMs, s.ms)
		x.DurationMs = append(x.DurationMs, 10)
		x.CpuMs = append(x.CpuMs, 5)
		x.PeakMemoryKib = append(x.PeakMemoryKib, 64)
		x.Digest = append(x.Digest, digest[:]...)
	}
	return x
}
