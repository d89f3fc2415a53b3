package output

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/sheaf-run/agent/sheaf"
)

// Manifest is the list of an attempt's output files, in the order of [Compare].
type Manifest struct {
	Files []sheaf.File
	Bytes int64 // sum of the sizes
}

// Compare orders files bytewise by output, then path.
func Compare(a, b sheaf.File) int {
	return cmp.Or(strings.Compare(a.Output, b.Output), strings.Compare(a.Path, b.Path))
}

// Encode is the manifest as JSON lines, a line a file in the form of
// [sheaf.File.AppendJSON]. The encoding of no files is empty.
func (m Manifest) Encode() []byte {
	var b []byte
	for _, f := range m.Files {
		b = append(f.AppendJSON(b), '\n')
	}
	return b
}

// Digest is the sha256 of an encoded manifest. That of no files is not zero.
func Digest(encoded []byte) [sha256.Size]byte { return sha256.Sum256(encoded) }

// Decode reads what Encode wrote. It refuses files that are out of order or
// given twice, and paths that [CheckPath] refuses: a manifest comes from another machine.
func Decode(encoded []byte) (Manifest, error) {
	var m Manifest
	for line := 1; len(encoded) > 0; line++ {
		raw, rest, ok := bytes.Cut(encoded, []byte{'\n'})
		if !ok {
			return Manifest{}, fmt.Errorf("output manifest: line %d is cut short", line)
		}
		encoded = rest
		var f sheaf.File
		if err := json.Unmarshal(raw, &f); err != nil {
			return Manifest{}, fmt.Errorf("output manifest: line %d: %w", line, err)
		}
		if err := CheckPath(f.Path); err != nil {
			return Manifest{}, fmt.Errorf("output manifest: line %d: %w", line, err)
		}
		if n := len(m.Files); n > 0 && Compare(m.Files[n-1], f) >= 0 {
			return Manifest{}, fmt.Errorf("output manifest: line %d: %q is out of order", line, f.Path)
		}
		if f.Size < 0 {
			return Manifest{}, fmt.Errorf("output manifest: line %d: %q has size %d", line, f.Path, f.Size)
		}
		m.Files = append(m.Files, f)
		m.Bytes += f.Size
	}
	return m, nil
}

// CheckPath reports why p cannot be the path of a file below an output: it must
// be relative and clean, without "..", without NUL, and at most [MaxPath] bytes long.
func CheckPath(p string) error {
	bad := func(why string) error {
		return &sheaf.Error{Class: sheaf.Invalid, Field: "path", Msg: fmt.Sprintf("output path %q %s", Clip(p), why)}
	}
	switch {
	case p == "" || p == ".":
		return bad("is empty")
	case len(p) > MaxPath:
		return bad(fmt.Sprintf("is %d bytes long, more than %d", len(p), MaxPath))
	case p[0] == '/':
		return bad("is absolute")
	case strings.IndexByte(p, 0) >= 0:
		return bad("holds a NUL byte")
	case path.Clean(p) != p, p == "..", strings.HasPrefix(p, "../"):
		return bad("is not clean")
	}
	return nil
}

// Clip shortens a name for a message.
func Clip(name string) string {
	const most = 200 // bytes: a name of the file system's own limit still tells which it is
	if len(name) <= most {
		return name
	}
	return name[:most] + "…"
}

// sortFiles brings files into the order of Compare.
func sortFiles(files []sheaf.File) { slices.SortFunc(files, Compare) }
