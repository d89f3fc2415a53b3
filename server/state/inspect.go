package state

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"

	"github.com/sheaf-run/agent/sheaf"
)

// Summary is what a snapshot holds, without its rows.
type Summary struct {
	Index    uint64    `json:"index"` // of the last entry applied
	TimeMs   int64     `json:"time"`  // cluster time, Unix ms
	Cluster  Cluster   `json:"cluster"`
	Runs     int       `json:"runs"`
	Nodes    int       `json:"nodes"`
	Sections []Section `json:"sections"` // by kind, in the order of first appearance
}

// Section is all sections of one kind.
type Section struct {
	Kind  string `json:"kind"`
	Count int    `json:"count"`
	Bytes int64  `json:"bytes"`
}

// kindNames are the kinds of sections as people read them.
var kindNames = map[byte]string{
	kindMeta: "meta", kindNode: "nodes", kindRun: "runs", kindPage: "partitions", kindChunk: "manifests",
	kindBackup: "backups", kindTombstone: "tombstones",
	kindSecret: "secrets", kindPolicy: "acl_policies", kindToken: "acl_tokens", kindNamespace: "namespaces",
}

// Inspect reads a snapshot through and says what is in it. Sections of kinds that it does not
// know are counted; each one's sum is checked.
func Inspect(r io.Reader) (Summary, error) {
	f := &frameReader{r: bufio.NewReaderSize(r, 1<<20)}
	if err := f.header(); err != nil {
		return Summary{}, fmt.Errorf("inspect: %w", err)
	}
	var s Summary
	at := map[byte]int{}
	for {
		kind, data, err := f.section()
		if err != nil {
			return s, fmt.Errorf("inspect: %w", err)
		}
		switch kind {
		case kindEnd:
			if len(data) != 8 || binary.LittleEndian.Uint64(data) != f.count-1 {
				return s, fmt.Errorf("inspect: %w: sections are missing", ErrDamaged)
			}
			return s, nil
		case kindMeta:
			var m meta
			if err := json.Unmarshal(data, &m); err != nil {
				return s, fmt.Errorf("inspect: %w: %w", ErrDamaged, err)
			}
			s.Index, s.TimeMs, s.Cluster = m.Index, m.TimeMs, m.Cluster
		case kindRun:
			s.Runs++
		case kindNode:
			s.Nodes++
		}
		i, ok := at[kind]
		if !ok {
			i = len(s.Sections)
			at[kind] = i
			name := kindNames[kind]
			if name == "" {
				name = fmt.Sprintf("kind %d", kind)
			}
			s.Sections = append(s.Sections, Section{Kind: name})
		}
		s.Sections[i].Count++
		s.Sections[i].Bytes += int64(len(data))
	}
}

// Adopt copies a snapshot and makes it one of another cluster. Regions stay what they are:
// one of another region is refused.
func Adopt(w io.Writer, r io.Reader, c Cluster) error {
	in := &frameReader{r: bufio.NewReaderSize(r, 1<<20)}
	if err := in.header(); err != nil {
		return fmt.Errorf("read the snapshot: %w", err)
	}
	buf := bufio.NewWriterSize(w, 1<<20)
	out := &frameWriter{w: buf}
	if err := out.header(); err != nil {
		return err
	}
	for {
		kind, data, err := in.section()
		if err != nil {
			return fmt.Errorf("read the snapshot: %w", err)
		}
		if kind == kindMeta {
			var m meta
			if err := strict(data, &m); err != nil {
				return fmt.Errorf("read the snapshot: %w", err)
			}
			if m.Cluster.Region != c.Region {
				return &sheaf.Error{Class: sheaf.Conflict, Msg: fmt.Sprintf("the snapshot is of region %q, and this is %q", m.Cluster.Region, c.Region)}
			}
			m.Cluster = c
			err = out.json(kindMeta, m)
		} else {
			err = out.section(kind, data)
		}
		if err != nil {
			return fmt.Errorf("write the snapshot: %w", err)
		}
		if kind == kindEnd {
			return buf.Flush()
		}
	}
}
