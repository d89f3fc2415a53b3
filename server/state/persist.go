package state

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/hashicorp/go-memdb"

	"github.com/sheaf-run/agent/server/state/table"
	"github.com/sheaf-run/agent/sheaf"
)

// runRecord is a run's row as snapshots hold it.
type runRecord struct {
	*Run
	Partitions int `json:"partitions"` // 0 while their number is unknown, -1 for none
}

// Persist writes the snapshot with the manifests' chunks, in memory bounded by
// its largest row. The state may go on changing meanwhile.
func (s *Snapshot) Persist(w io.Writer, chunks ChunkStore) error {
	buf := bufio.NewWriterSize(w, 1<<20)
	f := &frameWriter{w: buf}
	if err := f.header(); err != nil {
		return err
	}
	if err := s.sections(f, chunks); err != nil {
		return fmt.Errorf("write a snapshot: %w", err)
	}
	return buf.Flush()
}

func (s *Snapshot) sections(f *frameWriter, chunks ChunkStore) error {
	if err := f.json(kindMeta, s.meta); err != nil {
		return err
	}
	for n := range s.Nodes() {
		if err := f.json(kindNode, n); err != nil {
			return err
		}
	}
	for r := range s.Runs() {
		if err := r.persist(f, chunks); err != nil {
			return fmt.Errorf("run %s: %w", r.ID, err)
		}
	}
	for b := range scan[*Backup](s, tableBackups, byID, nil) {
		if err := f.json(kindBackup, b); err != nil {
			return err
		}
	}
	for t := range s.Tombstones() {
		if err := f.json(kindTombstone, t); err != nil {
			return err
		}
	}
	for x := range s.Secrets() {
		if err := f.json(kindSecret, x); err != nil {
			return err
		}
	}
	if err := s.accessSections(f); err != nil {
		return err
	}
	return f.section(kindEnd, binary.LittleEndian.AppendUint64(nil, f.count))
}

func (r *Run) persist(f *frameWriter, chunks ChunkStore) error {
	if err := f.json(kindRun, r.record()); err != nil {
		return err
	}
	if r.Partitions != nil {
		for k, b := range r.Partitions.Encoded() {
			if err := f.section(kindPage, binary.LittleEndian.AppendUint32(nil, uint32(k)), b); err != nil {
				return err
			}
		}
	}
	for _, c := range r.Manifest.Chunks {
		b, err := chunks.Get(r.ID, r.Manifest.Attempt, c.Offset, c.Length)
		if err != nil {
			return fmt.Errorf("read its manifest: %w", err)
		}
		if err := f.section(kindChunk, binary.LittleEndian.AppendUint64(nil, uint64(c.Offset)), b); err != nil {
			return err
		}
	}
	return nil
}

func (r *Run) record() runRecord {
	rec := runRecord{Run: r}
	if r.Partitions != nil {
		rec.Partitions = r.Partitions.Len()
		if rec.Partitions == 0 {
			rec.Partitions = -1
		}
	}
	return rec
}

// Restore replaces the whole state by a snapshot. An error leaves it as it was.
func (s *Store) Restore(r io.Reader) error {
	f := &frameReader{r: bufio.NewReaderSize(r, 1<<20)}
	if err := f.header(); err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	l := &loader{chunks: s.chunks, db: newDB()}
	l.mem = l.db.Txn(true)
	for {
		kind, data, err := f.section()
		if err != nil {
			return fmt.Errorf("restore: %w", err)
		}
		if kind == kindEnd {
			if len(data) != 8 || binary.LittleEndian.Uint64(data) != f.count-1 {
				return fmt.Errorf("restore: %w: sections are missing", ErrDamaged)
			}
			break
		}
		if err := l.load(kind, data); err != nil {
			return fmt.Errorf("restore: section %d: %w", f.count-1, err)
		}
	}
	l.finish()
	l.mem.Commit()
	s.reset(l.db, l.meta)
	now := s.Snapshot()
	if err := s.chunks.Retain(func(id sheaf.RunID) bool { return now.Run(id) != nil }); err != nil {
		return fmt.Errorf("restore: delete manifests of runs that are gone: %w", err)
	}
	return s.chunks.Sync()
}

// loader puts sections into a fresh database. Manifest bytes go to the chunk store at
// once: they are where they were, or belong to a run that Retain deletes.
type loader struct {
	chunks ChunkStore
	db     *memdb.MemDB
	mem    *memdb.Txn
	meta   meta
	run    *Run // the one that pages and chunks belong to
	pages  *table.Decoder
}

func (l *loader) load(kind byte, data []byte) error {
	switch kind {
	case kindMeta:
		return strict(data, &l.meta)
	case kindNode:
		return insert(l.mem, tableNodes, data, new(Node))
	case kindBackup:
		return insert(l.mem, tableBackups, data, new(Backup))
	case kindTombstone:
		return insert(l.mem, tableTombstones, data, new(Tombstone))
	case kindSecret:
		return insert(l.mem, tableSecrets, data, new(Secret))
	case kindPolicy:
		return insert(l.mem, tablePolicies, data, new(Policy))
	case kindToken:
		return insert(l.mem, tableTokens, data, new(Token))
	case kindNamespace:
		return insert(l.mem, tableNamespaces, data, new(Namespace))
	case kindRun:
		l.finish()
		return l.begin(data)
	case kindPage:
		if l.pages == nil || len(data) < 4 {
			return fmt.Errorf("%w: a page without its run", ErrDamaged)
		}
		return l.pages.Page(int(binary.LittleEndian.Uint32(data)), data[4:])
	case kindChunk:
		if l.run == nil || len(data) < 8 {
			return fmt.Errorf("%w: a chunk without its run", ErrDamaged)
		}
		return l.chunks.Put(l.run.ID, l.run.Manifest.Attempt, int64(binary.LittleEndian.Uint64(data)), data[8:])
	}
	return fmt.Errorf("%w: it has sections of kind %d", ErrNewer, kind)
}

// begin starts a run: its row is here, its pages and chunks follow.
func (l *loader) begin(data []byte) error {
	rec := runRecord{Run: &Run{digest: new(atomic.Uint64)}}
	if err := strict(data, &rec); err != nil {
		return err
	}
	l.run = rec.Run
	l.run.Job = new(sheaf.Job)
	if err := json.Unmarshal(l.run.JobJSON, l.run.Job); err != nil {
		return fmt.Errorf("the job of %s: %w", l.run.ID, err)
	}
	l.run.pin()
	if rec.Partitions != 0 {
		l.pages = table.NewDecoder(max(rec.Partitions, 0))
	}
	return nil
}

// finish inserts the run that is complete now.
func (l *loader) finish() {
	if l.run == nil {
		return
	}
	if l.pages != nil {
		l.run.Partitions = l.pages.Table()
	}
	must(l.mem.Insert(tableRuns, l.run))
	l.run, l.pages = nil, nil
}

func insert[T any](mem *memdb.Txn, table string, data []byte, row *T) error {
	if err := strict(data, row); err != nil {
		return err
	}
	must(mem.Insert(table, row))
	return nil
}

// strict decodes a row; a field that this version does not know is refused,
// since leaving it out would make this server's state differ from the others'.
func strict(data []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return fmt.Errorf("decode a row: %w", err)
	}
	return nil
}

func (f *frameWriter) json(kind byte, row any) error {
	b, err := json.Marshal(row)
	if err != nil {
		return err
	}
	return f.section(kind, b)
}
