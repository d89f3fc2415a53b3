package rpc

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/server/fsm"
)

const (
	// commitBytes of results go into one command; the rest of fsm.MaxCommand is
	// for its frame.
	commitBytes = fsm.MaxCommand - 1024
	// commitsUnderWay is how many full commands may be in the log's stream at
	// once: enough to hide a sync, few enough to keep latency down.
	commitsUnderWay = 4
	// collected is how many pieces wait; whoever reads a stream waits beyond.
	collected = 64
	// itemBytes is about what one result takes beside its text, its digest's 32 included.
	itemBytes = 72
	// pieceBytes bounds one piece of a client's results, so that pieces fill commands well.
	pieceBytes = 16 << 10
)

// Applier appends a command to the log and gives the state machine's reply.
type Applier interface {
	Apply(ctx context.Context, c *fsm.Command) (fsm.Reply, error)
}

// collector folds the results of all clients into few commands: under light
// load each goes at once, under heavy load they gather while the ones before are written.
type collector struct {
	log     Applier
	pieces  chan piece
	applied func(r *wire.Results, a *wire.Answers)
	answer  func(batch []piece, answers []*wire.Answers)
}

// piece is some of one client's results, small enough for a command.
type piece struct {
	results *wire.Results
	bytes   int
	to      *session
}

func newCollector(log Applier, applied func(*wire.Results, *wire.Answers), answer func([]piece, []*wire.Answers)) *collector {
	return &collector{log: log, pieces: make(chan piece, collected), applied: applied, answer: answer}
}

// add takes results that CheckResults has passed. It waits while too many are under way.
func (c *collector) add(ctx context.Context, r *wire.Results, to *session) error {
	for _, x := range cutResults(r) {
		select {
		case c.pieces <- piece{x, proto.Size(x) + 8, to}:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// run commits until ctx ends, and waits for what is under way.
func (c *collector) run(ctx context.Context) error {
	var batch []piece
	bytes, underWay := 0, 0
	done := make(chan struct{}, commitsUnderWay)
	defer func() {
		for ; underWay > 0; underWay-- {
			<-done
		}
	}()
	var over *piece // taken and not fitting any more
	for {
		in := c.pieces
		if over != nil {
			in = nil
		}
		for more := in != nil; more; { // all that is there, before deciding
			select {
			case p := <-in:
				if len(batch) > 0 && bytes+p.bytes > commitBytes {
					over, more = &p, false
					break
				}
				batch, bytes = append(batch, p), bytes+p.bytes
			default:
				more = false
			}
		}
		if len(batch) > 0 && (underWay == 0 || over != nil && underWay < commitsUnderWay) {
			full := batch
			batch, bytes = nil, 0
			underWay++
			go func() {
				c.commit(ctx, full)
				done <- struct{}{}
			}()
			if over != nil {
				batch, bytes, over = append(batch, *over), over.bytes, nil
			}
			continue
		}
		if over != nil {
			in = nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-done:
			underWay--
		case p := <-in:
			if len(batch) > 0 && bytes+p.bytes > commitBytes {
				over = &p
				continue
			}
			batch, bytes = append(batch, p), bytes+p.bytes
		}
	}
}

// commit applies one command and answers its clients. When it cannot be applied their
// streams end: the results come again on the next.
func (c *collector) commit(ctx context.Context, batch []piece) {
	command := &fsm.CommitPartitions{Results: make([]*wire.Results, len(batch))}
	for i, p := range batch {
		command.Results[i] = p.results
	}
	reply, err := c.log.Apply(ctx, &fsm.Command{Body: &fsm.Command_CommitPartitions{CommitPartitions: command}})
	if err == nil && reply.Err != nil {
		err = reply.Err
	}
	if err == nil && len(reply.Answers) != len(batch) {
		panic(fmt.Sprintf("rpc: %d results were applied and %d answered", len(batch), len(reply.Answers)))
	}
	for i, p := range batch {
		if err != nil {
			p.to.end(fmt.Errorf("commit results: %w", err))
			continue
		}
		c.applied(p.results, reply.Answers[i])
	}
	if err == nil {
		c.answer(batch, reply.Answers)
	}
}

// cutResults cuts results into pieces that fit commands well. What fits is given as it is.
func cutResults(r *wire.Results) []*wire.Results {
	n := len(r.Partition)
	texts := 0
	for _, t := range r.Text {
		texts += len(t.Message) + len(t.Stderr) + 16
	}
	if n*itemBytes+texts <= pieceBytes {
		return []*wire.Results{r}
	}
	size := make(map[uint32]int, len(r.Text)) // of the texts, by item
	for _, t := range r.Text {
		size[t.Item] += len(t.Message) + len(t.Stderr) + 16
	}
	var pieces []*wire.Results
	lo, bytes := 0, 0
	for i := range n {
		b := itemBytes + size[uint32(i)]
		if i > lo && bytes+b > pieceBytes {
			pieces = append(pieces, partOf(r, lo, i))
			lo, bytes = i, 0
		}
		bytes += b
	}
	return append(pieces, partOf(r, lo, n))
}

// partOf is the items lo to hi of r; it shares their columns.
func partOf(r *wire.Results, lo, hi int) *wire.Results {
	p := &wire.Results{
		Run: r.Run, Generation: r.Generation, Kind: r.Kind, Node: r.Node, Session: r.Session,
		Partition: r.Partition[lo:hi], Attempt: r.Attempt[lo:hi], Outcome: r.Outcome[lo:hi], Failure: r.Failure[lo:hi],
		ExitCode: r.ExitCode[lo:hi], StartedMs: r.StartedMs[lo:hi], DurationMs: r.DurationMs[lo:hi],
		CpuMs: r.CpuMs[lo:hi], PeakMemoryKib: r.PeakMemoryKib[lo:hi], Digest: r.Digest[32*lo : 32*hi],
	}
	for _, t := range r.Text {
		if int(t.Item) >= lo && int(t.Item) < hi {
			p.Text = append(p.Text, &wire.Text{Item: t.Item - uint32(lo), Message: t.Message, Stderr: t.Stderr})
		}
	}
	return p
}
