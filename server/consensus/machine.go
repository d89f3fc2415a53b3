package consensus

import (
	"fmt"
	"io"

	"github.com/hashicorp/raft"
)

// Machine is the state machine that entries are applied to, by one goroutine.
type Machine interface {
	// Apply applies the command at index and gives its reply. An error means that the
	// machine has halted: this and later entries stay unapplied.
	Apply(index uint64, command []byte) (reply any, err error)
	// Image is the state as it is, to be written while Apply goes on.
	Image() (Image, error)
	// Restore replaces the state by one that an Image wrote.
	Restore(r io.Reader) error
}

// Configured is told of each entry that says which servers there are, if a Machine is one.
type Configured interface {
	Configured(index uint64, servers []Peer)
}

// Image is an unchanging state.
type Image interface {
	WriteTo(w io.Writer) (int64, error)
}

// adapter lets raft apply batches to a Machine. It holds nothing but the error that halted it.
type adapter struct {
	machine Machine
	fatal   func(error)
	halted  error
}

// Apply implements raft.FSM.
func (a *adapter) Apply(l *raft.Log) any { return a.ApplyBatch([]*raft.Log{l})[0] }

// ApplyBatch implements raft.BatchingFSM.
func (a *adapter) ApplyBatch(logs []*raft.Log) []any {
	replies := make([]any, len(logs))
	for i, l := range logs {
		if c, ok := a.machine.(Configured); ok && l.Type == raft.LogConfiguration && a.halted == nil {
			c.Configured(l.Index, peersOf(raft.DecodeConfiguration(l.Data)))
		}
		if l.Type != raft.LogCommand {
			continue
		}
		if a.halted == nil {
			reply, err := a.machine.Apply(l.Index, l.Data)
			if err == nil {
				replies[i] = reply
				continue
			}
			a.halted = fmt.Errorf("apply entry %d: %w", l.Index, err)
			a.fatal(a.halted)
		}
		replies[i] = haltedReply{a.halted}
	}
	return replies
}

// haltedReply answers entries that were committed and not applied.
type haltedReply struct{ err error }

// Snapshot implements raft.FSM.
func (a *adapter) Snapshot() (raft.FSMSnapshot, error) {
	if a.halted != nil {
		return nil, a.halted
	}
	image, err := a.machine.Image()
	if err != nil {
		return nil, fmt.Errorf("take an image of the state: %w", err)
	}
	return persister{image}, nil
}

// Restore implements raft.FSM.
func (a *adapter) Restore(r io.ReadCloser) error {
	defer r.Close()
	if err := a.machine.Restore(r); err != nil {
		return fmt.Errorf("restore the state: %w", err)
	}
	return nil
}

type persister struct{ image Image }

// Persist implements raft.FSMSnapshot.
func (p persister) Persist(sink raft.SnapshotSink) error {
	if _, err := p.image.WriteTo(sink); err != nil {
		return fmt.Errorf("write the state: %w", err)
	}
	return nil
}

// Release implements raft.FSMSnapshot.
func (persister) Release() {}
