package fsm

import (
	"crypto/sha256"
	"fmt"
	"strings"

	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/server/state/table"
	"github.com/sheaf-run/agent/sheaf"
)

// maxWarnings bounds what a split may have to say.
const maxWarnings = 100

// putChunk stores the next chunk of a manifest. One that is there already is
// nothing; one from farther on is answered with where to resume.
func (s *step) putChunk(c *PutChunk) error {
	k := c.Chunk
	if k == nil {
		return refuse(sheaf.Invalid, "there is no chunk")
	}
	r := s.Run(sheaf.RunID(k.Run))
	if r == nil {
		return s.noRun(k.Run)
	}
	if len(k.Data) == 0 || len(k.Data) > state.MaxChunk {
		return &sheaf.Error{Class: sheaf.Invalid, Msg: fmt.Sprintf("a chunk has %d bytes", len(k.Data)), Limit: fmt.Sprintf("1 to %d", state.MaxChunk)}
	}
	sum := table.Digest(sha256.Sum256(k.Data))
	m := &r.Manifest
	if m.Attempt == k.SplitAttempt && int(k.Sequence) < len(m.Chunks) {
		if m.Chunks[k.Sequence].Digest != sum {
			return refuse(sheaf.Conflict, "chunk %d of run %s, split attempt %d, is there with other content", k.Sequence, k.Run, k.SplitAttempt)
		}
		s.reply.Contiguous, s.reply.Sealed = uint32(len(m.Chunks)), m.Sealed
		return nil
	}
	if err := s.mayWrite(r, k.SplitAttempt, k.Node, k.Session); err != nil {
		return err
	}
	m = &r.Change().Manifest
	if m.Attempt != k.SplitAttempt {
		*m = state.Manifest{Attempt: k.SplitAttempt}
		if err := s.Chunks().Delete(r.ID, k.SplitAttempt); err != nil {
			return fmt.Errorf("delete an abandoned manifest: %w", err)
		}
	}
	s.reply.Contiguous = uint32(len(m.Chunks))
	if int(k.Sequence) > len(m.Chunks) {
		return nil
	}
	next := state.Chunk{First: k.First, Count: k.Count, Length: uint32(len(k.Data)), Digest: sum}
	if n := len(m.Chunks); n > 0 {
		last := m.Chunks[n-1]
		next.Offset = last.Offset + int64(last.Length)
		next.First = last.First + last.Count
	} else {
		next.First = 0
	}
	if next.First != k.First || uint64(next.First)+uint64(next.Count) > sheaf.MaxPartitions {
		return refuse(sheaf.Invalid, "chunk %d of run %s holds partitions %d+%d, where %d is next and %d the most", k.Sequence, k.Run, k.First, k.Count, next.First, sheaf.MaxPartitions)
	}
	if err := s.Chunks().Put(r.ID, k.SplitAttempt, next.Offset, k.Data); err != nil {
		return fmt.Errorf("store a chunk of a manifest: %w", err)
	}
	m.Chunks = append(m.Chunks, next)
	s.reply.Contiguous++
	return nil
}

// mayWrite refuses whoever is not the run's valid split.
func (s *step) mayWrite(r *state.RunTxn, attempt uint32, node string, session uint64) error {
	n := s.Node(sheaf.NodeID(node))
	switch {
	case n == nil || !r.Split.Valid(attempt, n.Number):
		s.reply.Verdict = wire.Verdict_VERDICT_SUPERSEDED
		if r.Status == sheaf.RunCancelled {
			s.reply.Verdict = wire.Verdict_VERDICT_CANCELLED
		}
		return refuse(sheaf.Conflict, "split attempt %d of run %s on node %s is not valid any more", attempt, r.ID, node)
	case n.Session != session:
		s.reply.Verdict = wire.Verdict_VERDICT_RESEND
		return refuse(sheaf.Conflict, "session %d of node %s is over; it is %d", session, node, n.Session)
	}
	return nil
}

// sealManifest makes the partitions.
func (s *step) sealManifest(c *SealManifest) error {
	k := c.Seal
	if k == nil {
		return refuse(sheaf.Invalid, "there is no seal")
	}
	r := s.Run(sheaf.RunID(k.Run))
	if r == nil {
		return s.noRun(k.Run)
	}
	if m := r.Manifest; m.Sealed && m.Attempt == k.SplitAttempt && string(m.Root[:]) == string(k.Root) {
		s.reply.Sealed, s.reply.Verdict = true, wire.Verdict_VERDICT_ALREADY
		s.reply.Contiguous = uint32(len(m.Chunks))
		return nil
	}
	if err := s.mayWrite(r, k.SplitAttempt, k.Node, k.Session); err != nil {
		return err
	}
	m := r.Manifest
	if m.Attempt != k.SplitAttempt { // an empty manifest has no chunk that would have begun it
		m = state.Manifest{Attempt: k.SplitAttempt}
	}
	h, parts := sha256.New(), uint32(0)
	for _, x := range m.Chunks {
		_, _ = h.Write(x.Digest[:])
		parts += x.Count
	}
	m.Root = table.Digest(h.Sum(nil))
	if int(k.Chunks) != len(m.Chunks) || k.Partitions != parts || string(k.Root) != string(m.Root[:]) {
		return refuse(sheaf.Invalid, "the seal of run %s, split attempt %d, is for %d chunks and %d partitions with root %x; stored are %d and %d with %s", k.Run, k.SplitAttempt, k.Chunks, k.Partitions, k.Root, len(m.Chunks), parts, m.Root)
	}
	if r.Job.Split == nil && int(parts) != r.Job.Count {
		return refuse(sheaf.Invalid, "the manifest of run %s has %d partitions, and its count is %d", k.Run, parts, r.Job.Count)
	}
	if err := largestOf(k); err != nil {
		return err
	}
	m.Sealed, m.Partitions, m.Bytes, m.Largest = true, parts, k.Bytes, k.Largest
	for _, w := range k.Warnings[:min(len(k.Warnings), maxWarnings)] {
		m.Warnings = append(m.Warnings, short(w, maxMessage))
	}
	row := r.Change()
	row.Manifest = m
	row.Split.Active, row.Split.Done = false, true
	s.reply.Sealed, s.reply.Contiguous = true, k.Chunks
	s.reply.Verdict = wire.Verdict_VERDICT_COMMITTED
	if parts == 0 && !r.Job.Split.AllowEmpty { // a count is never 0
		s.stop(r, state.StopSplit, "the split matched nothing")
		return nil
	}
	if row.Image == "" {
		row.Image = k.ImageDigest
	}
	row.Partitions = table.New(int(parts))
	row.Reuse.Waits = r.Job.Reuse && !r.Rerun && parts > 0
	row.Status = sheaf.RunRunning
	s.settle(r)
	return nil
}

// largestOf refuses a seal that names what is no partition, or one twice.
func largestOf(k *wire.ManifestSeal) error {
	if len(k.Largest) > sheaf.MaxLargest {
		return refuse(sheaf.Invalid, "the seal of run %s names %d large partitions; at most %d may be", k.Run, len(k.Largest), sheaf.MaxLargest)
	}
	for i, p := range k.Largest {
		if p >= k.Partitions || i > 0 && p <= k.Largest[i-1] {
			return refuse(sheaf.Invalid, "the seal of run %s names large partitions that are not ascending below %d", k.Run, k.Partitions)
		}
	}
	return nil
}

// Bounds of what a client may say of a failure, in bytes.
const (
	maxMessage = 1 << 10
	maxStderr  = 2 << 10
)

// short cuts s to at most n bytes, between runes.
func short(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "")
}

// tail cuts s to its last n bytes at most, between runes.
func tail(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[len(s)-n:], "")
}
