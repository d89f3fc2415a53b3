package result

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"io/fs"
	"os"
	"path"
	"strings"
	"unicode/utf8"

	"github.com/sheaf-run/agent/sheaf"
)

const (
	listName = "manifest.json"
	listTemp = partial + "/manifest.json"
	// previous is the list of an earlier result while this one is written.
	previous = ".previous.json"
)

// entry is one file in manifest.json. Partition and attempt are of a file
// that comes from one partition; one joined of several has parts.
type entry struct {
	Path      string  `json:"path,omitempty"`
	PathB64   []byte  `json:"path_b64,omitempty"` // instead, where the path is not UTF-8
	Size      int64   `json:"size"`
	SHA256    string  `json:"sha256,omitempty"`
	Link      string  `json:"link,omitempty"`
	LinkB64   []byte  `json:"link_b64,omitempty"`
	Partition *int    `json:"partition,omitempty"`
	Attempt   *uint32 `json:"attempt,omitempty"`
	// Behind these come the parts: [piece].
}

type piece struct {
	Partition int    `json:"partition"`
	Attempt   uint32 `json:"attempt"`
	Size      int64  `json:"size"`
	SHA256    string `json:"sha256"`
}

func (e *entry) of(partition int, attempt uint32) { e.Partition, e.Attempt = &partition, &attempt }

// list writes manifest.json as it grows: one JSON document, a line a file.
type list struct {
	f    *os.File
	buf  *bufio.Writer
	line bytes.Buffer
	n    int
	seed maphash.Seed
	has  map[uint64]struct{} // hashes of the paths, kept only when something may be stale
}

func newList(root *os.Root, run sheaf.RunID) (*list, error) {
	f, err := root.OpenFile(listTemp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return nil, err
	}
	l := &list{f: f, buf: bufio.NewWriterSize(f, 64<<10), seed: maphash.MakeSeed()}
	if _, err := root.Lstat(previous); err == nil {
		l.has = map[uint64]struct{}{}
	}
	name, err := json.Marshal(run)
	if err != nil {
		return nil, err
	}
	_, err = fmt.Fprintf(l.buf, `{"run":%s,"files":[`, name)
	return l, err
}

// add lists a file; parts, if not nil, goes through those it is joined of.
func (l *list) add(name string, e entry, parts func(func(sheaf.Part) error) error) error {
	e.Path = name
	if !utf8.ValidString(name) {
		e.Path, e.PathB64 = "", []byte(name)
	}
	if !utf8.ValidString(e.Link) {
		e.Link, e.LinkB64 = "", []byte(e.Link)
	}
	if l.has != nil {
		l.has[maphash.String(l.seed, name)] = struct{}{}
	}
	l.line.Reset()
	if l.n++; l.n > 1 {
		l.line.WriteByte(',')
	}
	l.line.WriteByte('\n')
	enc := json.NewEncoder(&l.line)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(e); err != nil {
		return err
	}
	l.line.Truncate(l.line.Len() - 1) // the encoder's newline
	if parts == nil {
		_, err := l.buf.Write(l.line.Bytes())
		return err
	}
	l.line.Truncate(l.line.Len() - 1) // the closing brace
	if _, err := l.buf.Write(l.line.Bytes()); err != nil {
		return err
	}
	before := `,"parts":[`
	err := parts(func(p sheaf.Part) error {
		b, err := json.Marshal(piece{p.Partition, p.Attempt, p.Size, p.SHA256})
		if err == nil {
			_, err = l.buf.WriteString(before)
		}
		if err == nil {
			_, err = l.buf.Write(b)
		}
		before = ","
		return err
	})
	if err == nil {
		_, err = l.buf.WriteString("]}")
	}
	return err
}

func (l *list) finish() error {
	if _, err := l.buf.WriteString("\n]}\n"); err != nil {
		return err
	}
	return l.buf.Flush()
}

// old is the list of what an earlier result left in the folder.
type old struct {
	root *os.Root
	f    *os.File // nil where there is none
}

// openPrevious takes manifest.json away, so that what is half written is not taken for whole.
func openPrevious(root *os.Root) (*old, error) {
	err := root.Rename(listName, previous)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	f, err := root.Open(previous)
	if errors.Is(err, fs.ErrNotExist) {
		return &old{root: root}, nil
	}
	return &old{root: root, f: f}, err
}

func (o *old) close() {
	if o.f != nil {
		o.f.Close()
	}
}

// removeStale removes what the earlier result had and the list has not. A
// list that cannot be read is forgotten: it may be anybody's.
func (o *old) removeStale(l *list) error {
	if o.f == nil {
		return nil
	}
	for lines := bufio.NewReaderSize(o.f, maxLooked); ; {
		text, err := lines.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			text = bytes.Clone(text)
			for errors.Is(err, bufio.ErrBufferFull) {
				_, err = lines.ReadSlice('\n') // more parts, which are not looked at
			}
		}
		if len(text) == 0 && err != nil {
			break
		}
		name, ok := listedName(text)
		if !ok || !ours(name) {
			continue
		}
		if _, keep := l.has[maphash.String(l.seed, name)]; keep {
			continue
		}
		if err := o.root.Remove(name); err != nil {
			continue // gone, or something else by now
		}
		for dir := path.Dir(name); dir != "." && o.root.Remove(dir) == nil; {
			dir = path.Dir(dir) // only what is empty goes
		}
	}
	return o.root.Remove(previous)
}

// maxLooked is how much of a line of an earlier list is looked at, in bytes: the name stands first.
const maxLooked = 64 << 10

// listedName is the name of the file in a line of a list, which may be cut behind it.
func listedName(line []byte) (string, bool) {
	at := bytes.IndexByte(line, '{')
	if at < 0 {
		return "", false
	}
	dec := json.NewDecoder(bytes.NewReader(line[at:]))
	var e entry
	if _, err := dec.Token(); err != nil {
		return "", false
	}
	key, err := dec.Token()
	switch {
	case err != nil:
		return "", false
	case key == "path":
		err = dec.Decode(&e.Path)
	case key == "path_b64":
		err = dec.Decode(&e.PathB64)
	}
	if e.PathB64 != nil {
		e.Path = string(e.PathB64)
	}
	return e.Path, err == nil
}

// ours reports whether a result may have a file of that name.
func ours(name string) bool {
	return name == path.Clean(name) && (strings.HasPrefix(name, "outputs/") || strings.HasPrefix(name, "partitions/") || name == "stdout" || name == "stderr")
}
