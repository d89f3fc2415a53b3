package consensus

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/raft"
)

// A snapshot is one file: snapshotMagic, the length of the header (uint32, big
// endian), the header (JSON of raft.SnapshotMeta), the body, and the sha256 of all that. It gets
// its name by a rename once it is durable, so that a half of one is never found.
const (
	snapshotMagic  = "sheaf-raft-snapshot 1\n"
	snapshotFamily = "sheaf-raft-snapshot "
	snapshotSuffix = ".snap"
	// snapshotsKept is the newest and one to go back to by hand.
	snapshotsKept = 2
	// maxSnapshotHeader bounds what is read before the sum is known to match.
	maxSnapshotHeader = 1 << 20
	snapshotBuffer    = 256 << 10 // fewer, larger writes
)

// snapshotFiles is a raft.SnapshotStore in a directory. Unlike raft's own it
// never passes over a damaged snapshot for an older one: the log behind the newest is gone.
type snapshotFiles struct {
	dir     string
	checked string // ID that verifyNewest has just read through
}

func openSnapshots(dir string) (*snapshotFiles, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make snapshot directory: %w", err)
	}
	halves, err := filepath.Glob(filepath.Join(dir, "*.tmp"))
	if err != nil {
		return nil, fmt.Errorf("list snapshots: %w", err)
	}
	for _, h := range halves {
		if err := os.Remove(h); err != nil {
			return nil, fmt.Errorf("remove unfinished snapshot: %w", err)
		}
	}
	return &snapshotFiles{dir: dir}, nil
}

func (s *snapshotFiles) path(id string) string { return filepath.Join(s.dir, id+snapshotSuffix) }

// ids lists the snapshots, the newest first: names sort by index, then term.
func (s *snapshotFiles) ids() ([]string, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("list snapshots: %w", err)
	}
	var ids []string
	for _, e := range entries {
		if id, ok := strings.CutSuffix(e.Name(), snapshotSuffix); ok {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	slices.Reverse(ids)
	return ids, nil
}

// verifyNewest reads the newest snapshot through. It gives nil when there is none.
func (s *snapshotFiles) verifyNewest() (*raft.SnapshotMeta, error) {
	ids, err := s.ids()
	if err != nil || len(ids) == 0 {
		return nil, err
	}
	meta, f, err := s.verified(ids[0])
	if err != nil {
		return nil, err
	}
	f.Close()
	s.checked = ids[0]
	return meta, nil
}

// List gives the newest snapshot, or none. Older ones are for people.
func (s *snapshotFiles) List() ([]*raft.SnapshotMeta, error) {
	ids, err := s.ids()
	if err != nil || len(ids) == 0 {
		return nil, err
	}
	meta, f, _, err := s.header(ids[0])
	if err != nil {
		return nil, err
	}
	f.Close()
	return []*raft.SnapshotMeta{meta}, nil
}

// Open verifies a snapshot as a whole and gives its body.
func (s *snapshotFiles) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	if id == s.checked {
		s.checked = ""
		meta, f, _, err := s.header(id)
		if err != nil {
			return nil, nil, err
		}
		return meta, body{io.LimitReader(bufio.NewReaderSize(f, snapshotBuffer), meta.Size), f}, nil
	}
	meta, f, err := s.verified(id)
	if err != nil {
		return nil, nil, err
	}
	return meta, body{io.LimitReader(bufio.NewReaderSize(f, snapshotBuffer), meta.Size), f}, nil
}

type body struct {
	io.Reader
	io.Closer
}

// header opens a snapshot and reads up to its body, which begins at offset.
func (s *snapshotFiles) header(id string) (meta *raft.SnapshotMeta, f *os.File, offset int64, err error) {
	meta, f, offset, err = openHeader(s.path(id))
	if err == nil && meta.ID != id {
		f.Close()
		return nil, nil, 0, damaged(s.path(id), "the snapshot's header", errSum)
	}
	return meta, f, offset, err
}

// verified opens a snapshot, compares its sum, and leaves f at its body.
func (s *snapshotFiles) verified(id string) (*raft.SnapshotMeta, *os.File, error) {
	meta, f, offset, err := s.header(id)
	if err != nil {
		return nil, nil, err
	}
	if err := verifyBody(f, s.path(id), meta, offset); err != nil {
		return nil, nil, err
	}
	return meta, f, nil
}

// openHeader opens a snapshot's file and reads up to its body, which begins at offset.
func openHeader(path string) (meta *raft.SnapshotMeta, f *os.File, offset int64, err error) {
	f, err = os.Open(path)
	if err != nil {
		return nil, nil, 0, fmt.Errorf("open snapshot: %w", err)
	}
	fail := func(err error) (*raft.SnapshotMeta, *os.File, int64, error) {
		f.Close()
		return nil, nil, 0, err
	}
	st, err := f.Stat()
	if err != nil {
		return fail(fmt.Errorf("open snapshot: %w", err))
	}
	head := make([]byte, len(snapshotMagic)+4)
	if _, err := io.ReadFull(f, head); err != nil {
		return fail(damaged(path, "the snapshot's header", err))
	}
	if magic := head[:len(snapshotMagic)]; string(magic) != snapshotMagic {
		if bytes.HasPrefix(magic, []byte(snapshotFamily)) && magic[len(magic)-2] > '1' && magic[len(magic)-2] <= '9' {
			return fail(foreign(filepath.Dir(path), fmt.Sprintf("%s was written by a newer version", path)))
		}
		return fail(damaged(path, "the snapshot's header", errSum))
	}
	n := binary.BigEndian.Uint32(head[len(snapshotMagic):])
	if n > maxSnapshotHeader {
		return fail(damaged(path, "the snapshot's header", errSum))
	}
	text := make([]byte, n)
	if _, err := io.ReadFull(f, text); err != nil {
		return fail(damaged(path, "the snapshot's header", err))
	}
	meta = new(raft.SnapshotMeta)
	if err := json.Unmarshal(text, meta); err != nil {
		return fail(damaged(path, "the snapshot's header", errSum))
	}
	offset = int64(len(head)) + int64(n)
	meta.Size = st.Size() - offset - sha256.Size
	if meta.Size < 0 {
		return fail(damaged(path, "the snapshot", io.ErrUnexpectedEOF))
	}
	return meta, f, offset, nil
}

// verifyBody compares the sum of a snapshot's file and leaves f at its body. An error closes f.
func verifyBody(f *os.File, path string, meta *raft.SnapshotMeta, offset int64) error {
	fail := func(err error) error {
		f.Close()
		return damaged(path, "the snapshot", err)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return fail(err)
	}
	sum := sha256.New()
	if _, err := io.CopyBuffer(struct{ io.Writer }{sum}, io.LimitReader(f, offset+meta.Size), make([]byte, snapshotBuffer)); err != nil {
		return fail(err)
	}
	want := make([]byte, sha256.Size)
	if _, err := io.ReadFull(f, want); err != nil {
		return fail(err)
	}
	if !bytes.Equal(want, sum.Sum(nil)) {
		return fail(errSum)
	}
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		return fail(err)
	}
	return nil
}

// writeHead writes what stands before a snapshot's body.
func writeHead(w io.Writer, meta raft.SnapshotMeta) error {
	header, err := json.Marshal(meta)
	if err != nil {
		return fmt.Errorf("encode snapshot header: %w", err)
	}
	head := binary.BigEndian.AppendUint32([]byte(snapshotMagic), uint32(len(header)))
	_, err = w.Write(append(head, header...))
	return err
}

// Create begins a snapshot. It takes its place when the sink is closed.
func (s *snapshotFiles) Create(version raft.SnapshotVersion, index, term uint64, configuration raft.Configuration, configurationIndex uint64, _ raft.Transport) (raft.SnapshotSink, error) {
	id := fmt.Sprintf("%020d-%020d-%d", index, term, time.Now().UnixMilli())
	f, err := os.OpenFile(s.path(id)+".tmp", os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("create snapshot: %w", err)
	}
	sink := &snapshotSink{store: s, id: id, f: f, sum: sha256.New()}
	sink.w = bufio.NewWriterSize(io.MultiWriter(f, sink.sum), snapshotBuffer)
	if err := writeHead(sink.w, raft.SnapshotMeta{Version: version, ID: id, Index: index, Term: term, Configuration: configuration, ConfigurationIndex: configurationIndex}); err != nil {
		return nil, errors.Join(fmt.Errorf("create snapshot: %w", err), sink.Cancel())
	}
	return sink, nil
}

// snapshotSink is a snapshot being written.
type snapshotSink struct {
	store *snapshotFiles
	id    string
	f     *os.File
	sum   hash.Hash
	w     *bufio.Writer
	done  bool
}

// ID names the snapshot.
func (k *snapshotSink) ID() string { return k.id }

// Write appends to the body.
func (k *snapshotSink) Write(p []byte) (int, error) { return k.w.Write(p) }

// Close makes the snapshot durable and the newest. After Cancel it does nothing.
func (k *snapshotSink) Close() error {
	if k.done {
		return nil
	}
	k.done = true
	err := k.w.Flush()
	if err == nil {
		_, err = k.f.Write(k.sum.Sum(nil))
	}
	if err == nil {
		err = k.f.Sync()
	}
	if closeErr := k.f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write snapshot: %w", err), k.remove())
	}
	if err := os.Rename(k.f.Name(), k.store.path(k.id)); err != nil {
		return fmt.Errorf("name snapshot: %w", err)
	}
	if err := syncDir(k.store.dir); err != nil {
		return err
	}
	return k.store.reap()
}

// Cancel gives the snapshot up. After Close it does nothing.
func (k *snapshotSink) Cancel() error {
	if k.done {
		return nil
	}
	k.done = true
	return errors.Join(k.f.Close(), k.remove())
}

func (k *snapshotSink) remove() error {
	if err := os.Remove(k.f.Name()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove unfinished snapshot: %w", err)
	}
	return nil
}

func (s *snapshotFiles) reap() error {
	ids, err := s.ids()
	if err != nil {
		return err
	}
	for _, id := range ids[min(snapshotsKept, len(ids)):] {
		if err := os.Remove(s.path(id)); err != nil {
			return fmt.Errorf("remove old snapshot: %w", err)
		}
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("sync directory %s: %w", dir, err)
	}
	return nil
}
