package execution

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/sheaf-run/agent/drivers/driverpb"
	"github.com/sheaf-run/agent/internal/wire"
)

// TestExactAccounting plays a client against a model of what was assigned:
// whatever is assigned, taken back, killed, ended, answered and listed, each attempt is
// in one place, begins at most once, and is sent until it is answered.
func TestExactAccounting(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := node(5)
		one := func(s *Spec) { s.Need = Need{CPU: 1} }
		r := c.AddRun(spec("r", one), false)
		assigned, gone, began := map[uint32]bool{}, map[uint32]bool{}, map[uint32]bool{}
		answered := map[uint32]bool{}
		var running, storing []*Execution
		var sent []*Result
		next := uint32(0)
		now := t0
		settle := func() {
			for {
				fx := effects(c, now)
				if fx.Empty() {
					return
				}
				for range fx.Forget { // the leader describes it again before it assigns more
					r = c.AddRun(spec("r", one), false)
				}
				for range fx.Prepare {
					c.Prepared(r, now)
				}
				for _, x := range fx.Start {
					if began[x.Partition] || gone[x.Partition] {
						t.Fatalf("partition %d begins again or after it was given back", x.Partition)
					}
					began[x.Partition] = true
					running = append(running, x)
				}
				for _, x := range fx.Stop {
					c.Exited(&driverpb.Exited{Execution: x.ID, ExitCode: -1, Signal: "SIGTERM"})
				}
				storing = append(storing, fx.Store...)
				sent = append(sent, fx.Send...)
			}
		}
		each := func(x *wire.Executions, f func(p uint32)) {
			for i := range x.First {
				for k := range x.Count[i] {
					f(x.First[i] + k)
				}
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"assign": func(t *rapid.T) {
				n := rapid.Uint32Range(1, 12).Draw(t, "count")
				c.Assign(assign("r", next, n), now)
				for i := range n {
					assigned[next+i] = true
				}
				next += n
			},
			"assign again": func(t *rapid.T) {
				if next > 0 {
					p := rapid.Uint32Range(0, next-1).Draw(t, "partition")
					if assigned[p] && !gone[p] && !answered[p] && began[p] {
						c.Assign(assign("r", p, 1), now)
					}
				}
			},
			"take back": func(t *rapid.T) {
				each(c.TakeBack("r", 1, rapid.Uint32Range(0, 8).Draw(t, "most")), func(p uint32) {
					if began[p] {
						return // an assignment that came twice
					}
					if gone[p] || !assigned[p] {
						t.Fatalf("partition %d was given back twice, or never assigned", p)
					}
					gone[p] = true
				})
			},
			"kill": func(t *rapid.T) {
				x := assign("r", rapid.Uint32Range(0, next).Draw(t, "first"), rapid.Uint32Range(1, 4).Draw(t, "count"))
				c.Kill(x, now)
				each(x, func(p uint32) { gone[p] = gone[p] || assigned[p] })
			},
			"exit": func(t *rapid.T) {
				if len(running) > 0 {
					exit(c, running[0])
					running = running[1:]
				}
			},
			"stored": func(t *rapid.T) {
				for _, x := range storing {
					c.Stored(x)
				}
				storing = nil
			},
			"answer": func(t *rapid.T) {
				for _, res := range sent {
					if res.Unwanted {
						t.Fatalf("result of killed partition %d was sent", res.Partition)
					}
					answered[res.Partition] = true
					c.Answered(&wire.Answers{Run: "r", Partition: []uint32{res.Partition}, Attempt: []uint32{1}, Verdict: []byte{byte(wire.Verdict_VERDICT_COMMITTED)}})
				}
				sent = nil
			},
			"reconnect": func(t *rapid.T) {
				l := c.Hello()
				listed := map[uint32]string{}
				for what, xs := range map[string][]*wire.Executions{"queued": l.Queued, "executing": l.Executing, "finished": l.Finished} {
					for _, x := range xs {
						each(x, func(p uint32) {
							if was := listed[p]; was != "" && !(began[p] && (was == "queued" || what == "queued")) {
								t.Fatalf("partition %d is listed as %s and %s", p, was, what)
							}
							listed[p] = what
						})
					}
				}
				for p := range assigned {
					if want := !gone[p] && !answered[p]; want && listed[p] == "" {
						t.Fatalf("partition %d is assigned, unanswered and not listed", p)
					}
				}
				sent = nil
				c.Welcome(&wire.Welcome{LeaseMs: 60_000}, now)
			},
			"": func(t *rapid.T) {
				settle()
				if c.account.taken > 5 {
					t.Fatalf("%d executions hold capacity for 5", c.account.taken)
				}
				if len(c.live) == 0 && c.account.taken != 0 {
					t.Fatalf("nothing is live and %d hold capacity", c.account.taken)
				}
			},
		})
	})
}
