// Package merge makes one manifest of the output manifests of a run's
// partitions. It moves no bytes: a merged file says in its parts which partition,
// attempt and node holds them.
//
// # Rules
//
// Paths are compared byte for byte within an output. union: a path that two
// partitions wrote is a conflict, and so is a file where another partition has a directory.
// With on_conflict "rename" the lowest partition keeps the name and each other
// gets the suffix ".p<index>"; where a file meets a directory it is the file that is
// renamed. A renamed path that meets another is a conflict after all. With "last"
// the partitions overlay one another in order: a file replaces what lower partitions
// wrote at its path, above it or below it. concat: files of one path are joined
// in partition order; files that meet a directory, and links that meet anything
// but the same link, are conflicts whatever on_conflict says. none: each partition's files lie in a folder
// "<index>/", and nothing can conflict.
//
// A file of one part has that part's digest. The digest of a file of several
// parts is not known before its bytes are joined: SHA256 is empty and each part has its own.
// Links have no parts.
package merge

import (
	"bufio"
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"iter"

	"github.com/sheaf-run/agent/data/output"
	"github.com/sheaf-run/agent/sheaf"
)

// Partition is the output of one partition that was committed.
type Partition struct {
	Index   int
	Attempt uint32
	Node    sheaf.NodeID
	Files   []sheaf.File // in the order of output.Compare
}

// Options are the settings of a merge.
type Options struct {
	Dir    string // for what does not fit into memory; "" is the system's
	Memory int64  // bytes held before spilling; 0 is DefaultMemory
}

// DefaultMemory is what a merge holds before it spills to disk: some 200,000 files.
const DefaultMemory = 64 << 20

// Summary is what was merged.
type Summary struct {
	Files  int64
	Bytes  int64
	SHA256 [32]byte // of what was written
}

// Merge reads the partitions, in ascending order of index, and writes the merged
// manifest to w: JSON lines of sheaf.File, sorted by output, then path. A conflict is an error of
// class Conflict that names the path and both partitions; nothing that was written counts then.
func Merge(ctx context.Context, outputs []sheaf.Output, partitions iter.Seq2[Partition, error], w io.Writer, opts Options) (Summary, error) {
	if opts.Memory == 0 {
		opts.Memory = DefaultMemory
	}
	rules := make([]rule, len(outputs))
	byName := make(map[string]int, len(outputs))
	for i, o := range outputs {
		r, err := newRule(o)
		if err != nil {
			return Summary{}, err
		}
		rules[i], byName[o.Name] = r, i
	}
	m := merger{ctx: ctx, rules: rules, opts: opts, nodeIDs: map[sheaf.NodeID]uint32{}}
	written := m.sorter(bytewise)
	defer func() { written.close() }()
	first := m.sorter(byTree)
	defer func() { first.close() }()

	if err := m.collect(byName, partitions, first); err != nil {
		return Summary{}, err
	}
	// Renamed paths may meet others: they go round once more, by then a
	// conflict is an error.
	second := m.sorter(byTree)
	defer func() { second.close() }()
	if err := m.resolve(first, func(it *item) error {
		if m.rules[it.output].conflict == sheaf.ConflictRename && m.rules[it.output].merge == sheaf.MergeUnion {
			return second.add(it)
		}
		return written.add(it)
	}); err != nil {
		return Summary{}, err
	}
	for i := range m.rules {
		m.rules[i].conflict = sheaf.ConflictError
	}
	if err := m.resolve(second, written.add); err != nil {
		return Summary{}, err
	}
	return m.emit(written, w)
}

type merger struct {
	ctx     context.Context
	rules   []rule
	opts    Options
	nodes   []sheaf.NodeID
	nodeIDs map[sheaf.NodeID]uint32
}

// sorter makes one of the three that a merge holds at a time; each has a third of the memory.
func (m *merger) sorter(less order) *sorter {
	return &sorter{dir: m.opts.Dir, limit: m.opts.Memory / 3, compare: less}
}

// node is a node's place in m.nodes: there are few, and items are many.
func (m *merger) node(id sheaf.NodeID) uint32 {
	n, ok := m.nodeIDs[id]
	if !ok {
		n = uint32(len(m.nodes))
		m.nodes = append(m.nodes, id)
		m.nodeIDs[id] = n
	}
	return n
}

func (m *merger) collect(byName map[string]int, partitions iter.Seq2[Partition, error], into *sorter) error {
	last := -1
	for p, err := range partitions {
		if err == nil {
			err = m.ctx.Err()
		}
		if err != nil {
			return fmt.Errorf("read output manifests: %w", err)
		}
		if p.Index <= last {
			panic(fmt.Sprintf("merge: partition %d after %d", p.Index, last))
		}
		last = p.Index
		node := m.node(p.Node)
		for _, f := range p.Files {
			o, ok := byName[f.Output]
			if !ok {
				return &sheaf.Error{Class: sheaf.Invalid, Msg: fmt.Sprintf("the output manifest of partition %d names an output %q, which the job does not have", p.Index, f.Output)}
			}
			if err := output.CheckPath(f.Path); err != nil {
				return fmt.Errorf("output manifest of partition %d: %w", p.Index, err)
			}
			it := item{output: uint32(o), partition: uint32(p.Index), attempt: p.Attempt, node: node, file: f}
			if m.rules[o].merge == sheaf.MergeNone {
				it.origin, it.file.Path = f.Path, fmt.Sprintf("%d/%s", p.Index, f.Path)
			}
			if err := into.add(&it); err != nil {
				return err
			}
		}
	}
	return nil
}

// emit writes the items, which are in their final order, joining those of one path.
func (m *merger) emit(from *sorter, w io.Writer) (Summary, error) {
	out := writer{buf: bufio.NewWriterSize(nil, 256<<10), hash: sha256.New(), parts: spool{dir: m.opts.Dir}}
	defer out.parts.close()
	out.buf.Reset(io.MultiWriter(w, out.hash))
	var cur sheaf.File
	var at uint32
	begun := false
	err := from.each(func(it *item) error {
		if begun && at == it.output && cur.Path == it.file.Path {
			return m.addPart(&cur, it, &out.parts)
		}
		if begun {
			if err := out.file(&cur); err != nil {
				return err
			}
			if out.sum.Files%1024 == 0 && m.ctx.Err() != nil {
				return m.ctx.Err()
			}
		}
		begun, at = true, it.output
		cur = sheaf.File{Output: m.rules[it.output].name, Path: it.file.Path, Mode: it.file.Mode, Link: it.file.Link}
		return m.addPart(&cur, it, &out.parts)
	})
	if err == nil && begun {
		err = out.file(&cur)
	}
	if err == nil {
		err = out.buf.Flush()
	}
	if err != nil {
		return Summary{}, fmt.Errorf("write merged manifest: %w", err)
	}
	out.hash.Sum(out.sum.SHA256[:0])
	return out.sum, nil
}

// addPart adds what a partition holds of a merged file.
func (m *merger) addPart(f *sheaf.File, it *item, to *spool) error {
	if it.file.Link != "" {
		return nil
	}
	f.Size += it.file.Size
	f.SHA256 = it.file.SHA256
	if to.n > 0 {
		f.SHA256 = ""
	}
	return to.add(sheaf.Part{
		Partition: int(it.partition), Attempt: it.attempt, Node: m.nodes[it.node],
		Path: it.origin, Size: it.file.Size, SHA256: it.file.SHA256,
	})
}

type writer struct {
	buf   *bufio.Writer
	hash  hash.Hash
	line  []byte
	parts spool // of the file that is next
	sum   Summary
}

// file writes a file whose parts are in the spool, in the form of [sheaf.File.AppendJSON].
func (w *writer) file(f *sheaf.File) error {
	w.line = f.AppendJSON(w.line[:0])
	w.sum.Files++
	w.sum.Bytes += f.Size
	if w.parts.n == 0 {
		_, err := w.buf.Write(append(w.line, '\n'))
		return err
	}
	if _, err := w.buf.Write(append(w.line[:len(w.line)-1], `,"parts":[`...)); err != nil {
		return err
	}
	if err := w.parts.drain(w.buf); err != nil {
		return err
	}
	_, err := w.buf.WriteString("]}\n")
	return err
}
