package fsm

import (
	"fmt"
	"sync"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/sheaf-run/agent/sheaf"
)

// Limits of the size of a command, encoded.
const (
	MaxCommand     = 64 << 10 // one entry must not hold up the log's stream
	MaxRegisterJob = 1 << 20  // a job with its environment and config
)

// kind is one kind of command.
type kind struct {
	number protoreflect.FieldNumber // in Command.body; the log's format
	name   string
	apply  func(*step, *Command) error
}

// kinds are all there are. A number is never used again.
var kinds = [...]kind{
	{2, "Bootstrap", on((*Command).GetBootstrap, (*step).bootstrap)},
	{3, "RegisterNode", on((*Command).GetRegisterNode, (*step).registerNode)},
	{4, "SetNodeEligibility", on((*Command).GetSetNodeEligibility, (*step).setNodeEligibility)},
	{5, "NodeLost", on((*Command).GetNodeLost, (*step).nodeLost)},
	{6, "RegisterJob", on((*Command).GetRegisterJob, (*step).registerJob)},
	{7, "PutChunk", on((*Command).GetPutChunk, (*step).putChunk)},
	{8, "SealManifest", on((*Command).GetSealManifest, (*step).sealManifest)},
	{9, "ApplyPlan", on((*Command).GetApplyPlan, (*step).applyPlan)},
	{10, "CommitPartitions", on((*Command).GetCommitPartitions, (*step).commitPartitions)},
	{11, "Release", on((*Command).GetRelease, (*step).release)},
	{12, "CancelRun", on((*Command).GetCancelRun, (*step).cancelRun)},
	{13, "RetryRun", on((*Command).GetRetryRun, (*step).retryRun)},
	{14, "InvalidateOutput", on((*Command).GetInvalidateOutput, (*step).invalidateOutput)},
	{15, "SealResult", on((*Command).GetSealResult, (*step).sealResult)},
	{16, "SetImageDigest", on((*Command).GetSetImageDigest, (*step).setImageDigest)},
	{17, "NodePrepareFailed", on((*Command).GetNodePrepareFailed, (*step).nodePrepareFailed)},
	{18, "AdvanceTime", on((*Command).GetAdvanceTime, (*step).advanceTime)},
	{19, "DeleteRun", on((*Command).GetDeleteRun, (*step).deleteRun)},
	{20, "ReapRuns", on((*Command).GetReapRuns, (*step).reapRuns)},
	{25, "WriteACL", on((*Command).GetWriteAcl, (*step).writeACL)},
	{26, "WriteNamespace", on((*Command).GetWriteNamespace, (*step).writeNamespace)},
	{21, "ChangeRun", on((*Command).GetChangeRun, (*step).changeRun)},
	{27, "WriteSecret", on((*Command).GetWriteSecret, (*step).writeSecret)},
	{28, "SetOperator", on((*Command).GetSetOperator, (*step).setOperator)},
	{23, "ChangeNode", on((*Command).GetChangeNode, (*step).changeNode)},
	{24, "MoveOutputs", on((*Command).GetMoveOutputs, (*step).moveOutputs)},
	{30, "AdoptOutputs", on((*Command).GetAdoptOutputs, (*step).adoptOutputs)},
	{33, "NoteConflict", on((*Command).GetNoteConflict, (*step).noteConflict)},
}

// KindNames are the names of all kinds, in the order of their numbers.
func KindNames() []string {
	names := make([]string, len(kinds))
	for i, k := range kinds {
		names[i] = k.name
	}
	return names
}

// KindName is the kind of an entry, for logs and metrics; "unknown" where it has none.
func KindName(entry []byte) string {
	c := new(Command)
	if err := proto.Unmarshal(entry, c); err == nil {
		if k, err := kindOf(c); err == nil {
			return k.name
		}
	}
	return "unknown"
}

func on[T any](get func(*Command) T, apply func(*step, T) error) func(*step, *Command) error {
	return func(s *step, c *Command) error { return apply(s, get(c)) }
}

// kindOf finds the kind of a command, of which every field must be known.
func kindOf(c *Command) (kind, error) {
	m := c.ProtoReflect()
	if unknown(m) {
		return kind{}, fmt.Errorf("%w: start a newer one", ErrUnknownCommand)
	}
	if f := m.WhichOneof(m.Descriptor().Oneofs().ByName("body")); f != nil {
		for _, k := range kinds {
			if k.number == f.Number() {
				return k, nil
			}
		}
	}
	return kind{}, fmt.Errorf("%w: it has no kind", ErrUnknownCommand)
}

// unknown reports whether m or a message in it has a field that this version
// does not know: leaving it out would make servers of two versions differ.
func unknown(m protoreflect.Message) bool {
	if len(m.GetUnknown()) > 0 {
		return true
	}
	for _, f := range messagesIn(m.Descriptor()) {
		if !m.Has(f) {
			continue
		}
		if !f.IsList() {
			if unknown(m.Get(f).Message()) {
				return true
			}
			continue
		}
		for l, i := m.Get(f).List(), 0; i < l.Len(); i++ {
			if unknown(l.Get(i).Message()) {
				return true
			}
		}
	}
	return false
}

// nested are the fields that hold messages, by the name of the message that has them: looking at
// all fields of each command costs as much as decoding it.
var nested sync.Map // protoreflect.FullName to []protoreflect.FieldDescriptor

func messagesIn(d protoreflect.MessageDescriptor) []protoreflect.FieldDescriptor {
	if known, ok := nested.Load(d.FullName()); ok {
		return known.([]protoreflect.FieldDescriptor)
	}
	var list []protoreflect.FieldDescriptor
	for i := range d.Fields().Len() {
		if f := d.Fields().Get(i); f.Message() != nil {
			list = append(list, f)
		}
	}
	nested.Store(d.FullName(), list)
	return list
}

// Encode is the entry of a command. One that is larger than its kind may be is
// refused as TooLarge.
func Encode(c *Command) ([]byte, error) {
	limit := MaxCommand
	if c.GetRegisterJob() != nil {
		limit = MaxRegisterJob
	}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("encode a command: %w", err)
	}
	if len(b) > limit {
		return nil, &sheaf.Error{Class: sheaf.TooLarge, Msg: fmt.Sprintf("the command has %d bytes", len(b)), Limit: fmt.Sprintf("%d KiB", limit>>10)}
	}
	return b, nil
}
