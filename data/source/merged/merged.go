// Package merged is the merged result of a run as a source: the files of one of its
// outputs, as the merged manifest lists them. The manifest stays on disk, and of it every
// sixty-fourth path is held in memory. Each file is read from where its parts lie, which the caller
// knows, and checked against their digests. A result never changes.
package merged

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/sheaf-run/agent/data/source"
	"github.com/sheaf-run/agent/sheaf"
)

const (
	// blockLines is how many lines of the manifest are looked through for one path at most: some 100 µs.
	blockLines = 64
	// maxLine is the longest line of a manifest, in bytes: a file joined of a million parts.
	maxLine = 256 << 20
	// maxLinks is how many links one path may lead through, as in the kernel.
	maxLinks = 40
)

// Config says where a result lies.
type Config struct {
	Output string // the name of the output wanted

	// Manifest gives the path on this machine of the merged manifest, verified, which stays there until
	// release is called. After an error it is asked again.
	Manifest func(ctx context.Context) (path string, release func(), err error)

	// Open reads a part of a file, from an offset on; length 0 is to its end.
	Open func(ctx context.Context, f *sheaf.File, p sheaf.Part, offset, length int64) (io.ReadCloser, error)
}

// Source is an output of a result.
type Source struct {
	cfg Config

	mu      sync.Mutex
	file    *os.File // the manifest, once it was asked for
	release func()
	index   index
}

var _ source.Source = (*Source)(nil)

// index is what is held in memory of a manifest. It does not change.
type index struct {
	blocks []block
	end    int64 // of the output's lines
	// late are the directories before whose content stand files that sort behind the directory: a.txt
	// between a and a/b. In order.
	late []string
}

// block is a stretch of lines, which begins with a path.
type block struct {
	path   string
	offset int64
}

// New makes a source of an output; nothing is read yet.
func New(cfg Config) *Source { return &Source{cfg: cfg} }

// open makes the manifest ready.
func (s *Source) open(ctx context.Context) (*os.File, *index, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file != nil {
		return s.file, &s.index, nil
	}
	path, release, err := s.cfg.Manifest(ctx)
	if err != nil {
		return nil, nil, err
	}
	f, err := os.Open(path)
	if err == nil {
		if s.index, err = read(ctx, f, s.cfg.Output); err != nil {
			_ = f.Close()
		}
	}
	if err != nil {
		release()
		return nil, nil, fmt.Errorf("read the merged manifest: %w", err)
	}
	s.file, s.release = f, release
	return s.file, &s.index, nil
}

// name is what the index needs of a line.
type name struct {
	Path    string `json:"path"`
	PathB64 []byte `json:"path_b64"`
}

// read goes through a manifest, which is in order of output, then path.
func read(ctx context.Context, f *os.File, output string) (index, error) {
	var x index
	head, err := json.Marshal(output)
	if err != nil {
		return x, err
	}
	head = append(append([]byte(`{"output":`), head...), ',')
	lines := scanner(f)
	last, n, at := "", 0, int64(0)
	for lines.Scan() {
		line := lines.Bytes()
		begin := at
		at += int64(len(line)) + 1
		if !bytes.HasPrefix(line, head) {
			if n > 0 {
				break // those behind are of another output
			}
			continue
		}
		var v name
		if err := json.Unmarshal(line, &v); err != nil {
			return x, fmt.Errorf("the line at byte %d: %w", begin, err)
		}
		path := v.Path
		if v.PathB64 != nil {
			path = string(v.PathB64)
		}
		if err := source.CheckPath(path); err != nil {
			return x, err
		}
		if n > 0 && path <= last {
			return x, fmt.Errorf("%q is out of order", path)
		}
		if n%blockLines == 0 {
			x.blocks = append(x.blocks, block{path, begin})
			if err := ctx.Err(); err != nil {
				return x, err
			}
		}
		for i := range len(path) {
			if path[i] == '/' && len(last) > i && last[i] < '/' && last[:i] == path[:i] {
				x.late = append(x.late, path[:i])
			}
		}
		last, n, x.end = path, n+1, at
	}
	slices.Sort(x.late)
	return x, lines.Err()
}

func scanner(r io.Reader) *bufio.Scanner {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, 64<<10), maxLine)
	return lines
}

// from hands on the files from the first whose path is not before a given one, until next says that it is enough.
func (x *index) from(f *os.File, path string, next func(*sheaf.File) (more bool, err error)) error {
	i, found := slices.BinarySearchFunc(x.blocks, path, func(b block, p string) int { return strings.Compare(b.path, p) })
	if !found && i > 0 {
		i--
	}
	if i >= len(x.blocks) {
		return nil
	}
	at := x.blocks[i].offset
	lines := scanner(io.NewSectionReader(f, at, x.end-at))
	for lines.Scan() {
		var v sheaf.File
		if err := json.Unmarshal(lines.Bytes(), &v); err != nil {
			return fmt.Errorf("read the merged manifest: %w", err)
		}
		if v.Path < path {
			continue
		}
		if more, err := next(&v); err != nil || !more {
			return err
		}
	}
	return lines.Err()
}

// find is the file at a path, or nil.
func (x *index) find(f *os.File, path string) (found *sheaf.File, err error) {
	err = x.from(f, path, func(v *sheaf.File) (bool, error) {
		if v.Path == path {
			found = v
		}
		return false, nil
	})
	return found, err
}

// isDir reports whether something lies below a path.
func (x *index) isDir(f *os.File, path string) (is bool, err error) {
	err = x.from(f, path+"/", func(v *sheaf.File) (bool, error) {
		is = strings.HasPrefix(v.Path, path+"/")
		return false, nil
	})
	return is, err
}

// Local says that parts are no files of this machine for tasks to read.
func (*Source) Local(string) (string, bool) { return "", false }

// Shared says that every node reads the same.
func (*Source) Shared() bool { return true }

// Close gives the manifest back.
func (s *Source) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file == nil {
		return nil
	}
	err := s.file.Close()
	s.release()
	s.file = nil
	return err
}
