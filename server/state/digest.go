package state

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"

	"github.com/zeebo/xxh3"
)

// Digest is a text that two servers share exactly when they hold the same
// state, but for what was made of the log index alone. Rows and pages are hashed once, so that
// asking every thousand entries costs what has changed since.
func (s *Snapshot) Digest() string {
	h := xxh3.New()
	m := s.meta
	m.Index = 0
	row := func(v any) {
		b, err := json.Marshal(v)
		must(err)
		_, _ = h.Write(b)
	}
	row(m)
	for n := range s.Nodes() {
		row(n)
	}
	var b [8]byte
	for r := range s.Runs() {
		binary.LittleEndian.PutUint64(b[:], r.sum())
		_, _ = h.Write(b[:])
	}
	for x := range scan[*Backup](s, tableBackups, byID, nil) {
		row(x)
	}
	for x := range s.Tombstones() {
		row(x)
	}
	for x := range s.Secrets() {
		row(x)
	}
	for x := range s.Policies() {
		row(x)
	}
	for x := range s.Tokens() {
		row(x)
	}
	for x := range scan[*Namespace](s, tableNamespaces, byID, nil) {
		row(x)
	}
	sum := h.Sum128().Bytes()
	return hex.EncodeToString(sum[:])
}

// sum is the digest of the row and its partitions, computed once.
func (r *Run) sum() uint64 {
	if d := r.digest.Load(); d != 0 {
		return d
	}
	b, err := json.Marshal(r.record())
	must(err)
	if r.Partitions != nil {
		b = binary.LittleEndian.AppendUint64(b, r.Partitions.Digest())
	}
	d := max(xxh3.Hash(b), 1)
	r.digest.Store(d)
	return d
}
