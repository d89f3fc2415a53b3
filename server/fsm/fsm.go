// Package fsm decides. It is the only writer of package state: each entry of
// the log is a command, and Apply turns the state before it and the command into
// the state after it and a reply. It reads no clock, no random source and no map in
// order, so that every server that applies the same log holds the same state, to the byte.
//
// Commands that ask for something impossible are refused with a *sheaf.Error
// in the reply and change nothing but cluster time. A command that cannot be
// understood, or a disk that fails, halts the machine instead: it is never skipped.
package fsm

import (
	"errors"
	"fmt"
	"io"

	"google.golang.org/protobuf/proto"

	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/sheaf"
)

// ErrUnknownCommand is wrapped by the error of Apply where the entry is of a
// kind, or has a field, that this version does not know.
var ErrUnknownCommand = errors.New("the log holds a command that this version does not know")

// Machine applies commands to a store. It is used by one goroutine.
type Machine struct {
	store   *state.Store
	observe func(Applied)
	halted  error
}

// Applied is an entry that was applied, and what it did.
type Applied struct {
	Index   uint64
	Command *Command
	Reply   Reply           // with Err set nothing has changed but cluster time
	After   *state.Snapshot // the state with it
	Changes []state.Change
}

// Observe has f called with every entry right after it was applied, in order. It comes before the first Apply.
func (m *Machine) Observe(f func(Applied)) { m.observe = f }

// New makes a machine over a store.
func New(store *state.Store) *Machine { return &Machine{store: store} }

// Store is what the machine writes to; anyone may read it.
func (m *Machine) Store() *state.Store { return m.store }

// Apply applies the entry at index. The error is fatal: the machine has
// halted, this and every later entry are unapplied, and the process should end.
func (m *Machine) Apply(index uint64, data []byte) (Reply, error) {
	if m.halted != nil {
		return Reply{}, m.halted
	}
	reply, err := m.apply(index, data)
	if err != nil {
		m.halted = fmt.Errorf("apply entry %d: %w", index, err)
		return Reply{}, m.halted
	}
	return reply, nil
}

func (m *Machine) apply(index uint64, data []byte) (Reply, error) {
	cmd := new(Command)
	if err := proto.Unmarshal(data, cmd); err != nil {
		return Reply{}, fmt.Errorf("decode a command: %w", err)
	}
	k, err := kindOf(cmd)
	if err != nil {
		return Reply{}, err
	}
	s := &step{Txn: m.store.Begin(index, cmd.TimeMs), reply: Reply{Index: index}}
	if m.observe != nil {
		s.Track()
	}
	err = k.apply(s, cmd)
	var refused *sheaf.Error
	switch {
	case err == nil:
		s.Commit()
	case errors.As(err, &refused):
		s.Abort()
		s.reply.Err = refused
	default:
		s.Abort()
		return Reply{}, fmt.Errorf("%s: %w", k.name, err)
	}
	if m.observe != nil {
		m.observe(Applied{index, cmd, s.reply, m.store.Snapshot(), s.Changes()})
	}
	return s.reply, nil
}

// Restore replaces the state by one that an Image wrote; an error leaves it as it was.
func (m *Machine) Restore(r io.Reader) error { return m.store.Restore(r) }

// Image is the state as it is now, to be written while Apply goes on.
func (m *Machine) Image() *Image { return &Image{m.store.Snapshot(), m.store.Chunks()} }

// Image is an unchanging state with the manifests that belong to it.
type Image struct {
	snap   *state.Snapshot
	chunks state.ChunkStore
}

// WriteTo writes the image in the form that Restore reads.
func (i *Image) WriteTo(w io.Writer) (int64, error) {
	c := &counter{w: w}
	err := i.snap.Persist(c, i.chunks)
	return c.n, err
}

type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += int64(n)
	return n, err
}

// step is the application of one command.
type step struct {
	*state.Txn
	reply Reply
	able  map[sheaf.RunID]int // by run, how many nodes can take it
	// gaveUp is the run of which an output was given up last.
	gaveUp *state.RunTxn
}

// Reply is what became of a command. Fields that do not concern it are zero.
type Reply struct {
	Index uint64
	// Err is why the command was refused: a *sheaf.Error. Nothing changed then.
	Err error

	Session    uint64             // RegisterNode: the new session
	Existing   bool               // RegisterJob: the run was there already, with the same body
	Contiguous uint32             // PutChunk: chunks below this are stored
	Sealed     bool               // PutChunk, SealManifest: the manifest is sealed
	Placed     []Placed           // ApplyPlan: one for each placement, in order
	Answers    []*wire.Answers    // CommitPartitions: one for each Results, in order
	Verdict    wire.Verdict       // PutChunk, SealManifest, SealResult; set with Err too
	Ended      []*wire.Executions // NodePrepareFailed, Release: executions that this ended
	Freed      []sheaf.RunID      // any: runs that came after one that this ended, and were let go or failed
	Status     sheaf.RunStatus    // RegisterJob, CancelRun, RetryRun: the run's after it
	Partitions int                // RetryRun, InvalidateOutput: how many run again
	Adopted    int                // AdoptOutputs: how many partitions were taken over
	Digest     string             // SetImageDigest: the one that stands
	Moved      int                // MoveOutputs: how many outputs lie elsewhere now
	Lost       int                // InvalidateOutput with note: how many were not known to be lost
}

// Placed says what became of one placement.
type Placed struct {
	// Executions are those placed, with their attempts; nil if none.
	Executions *wire.Executions
	Refused    int    // how many partitions were not placed
	Reason     string // why, for the first of them
}

// refuse makes the error of a command that changes nothing.
func refuse(class sheaf.Class, format string, args ...any) *sheaf.Error {
	return &sheaf.Error{Class: class, Msg: fmt.Sprintf(format, args...)}
}

// noRun is the refusal of a command about a run that is not there.
func (s *step) noRun(id string) *sheaf.Error {
	if s.Tombstone(sheaf.RunID(id)) != nil {
		return refuse(sheaf.NotFound, "run %s was deleted", id)
	}
	return refuse(sheaf.NotFound, "there is no run %s", id)
}
