// Package provenance finds where a file of a run's result comes from: which parts it has, and
// what the partitions that made them have read. It holds a piece of the manifests at a time,
// whatever their length. Who asks passes what is found on as it comes.
package provenance

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/sheaf-run/agent/sheaf"
)

// window is how much of a line is looked at for its path: more than the longest path's
// JSON form, which has up to six bytes for each of 4096.
const window = 64 << 10

// Found takes what is found, in the order of the manifest.
type Found struct {
	// File begins a file; its Parts are not set.
	File func(f sheaf.File) error
	// Part is a part of the file that began last.
	Part func(p sheaf.Part) error
}

// Find looks for a path of an output in a merged manifest: the file there, or all files below the
// directory there. A path that is "" is the whole output.
func Find(manifest io.Reader, output, path string, found Found) error {
	in := bufio.NewReaderSize(manifest, window)
	file, below := prefixes(output, path)
	encoded := append(head(output), `,"path_b64":`...)
	for {
		begin, err := in.ReadSlice('\n')
		whole := err == nil
		switch {
		case errors.Is(err, io.EOF) && len(begin) == 0:
			return nil
		case err != nil && !errors.Is(err, bufio.ErrBufferFull) && !errors.Is(err, io.EOF):
			return fmt.Errorf("read the merged manifest: %w", err)
		}
		one := bytes.HasPrefix(begin, file)
		if !one && !bytes.HasPrefix(begin, below) && !bytes.HasPrefix(begin, encoded) {
			if !whole {
				err = skipLine(in)
			}
		} else {
			rest := &line{in: in, ended: whole}
			err = read(io.MultiReader(bytes.NewReader(bytes.Clone(begin)), rest), func(p string) bool { return one || isBelow(p, path) }, found)
			if err == nil {
				err = rest.skip()
			}
			if one && err == nil {
				return nil
			}
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
	}
}

// isBelow reports whether a file is at the path or lies in the directory there.
func isBelow(file, path string) bool {
	return path == "" || file == path || len(file) > len(path) && file[len(path)] == '/' && file[:len(path)] == path
}

// head is how the lines of an output begin.
func head(output string) []byte {
	b := sheaf.File{Output: output}.AppendJSON(nil)
	return b[:bytes.Index(b, []byte(`,"path":`))]
}

// prefixes are how the line of a file at path begins, and those of files below it. Quotes within names
// are escaped, so that what is cut off is found by its key.
func prefixes(output, path string) (file, below []byte) {
	cut := func(p string) []byte {
		b := sheaf.File{Output: output, Path: p}.AppendJSON(nil)
		return b[:bytes.Index(b, []byte(`,"size":`))]
	}
	if path == "" {
		return []byte("\n"), head(output) // no line begins with its end
	}
	below = cut(path + "/")
	return cut(path), below[:len(below)-1]
}

// read reads one line piece by piece.
func read(in io.Reader, wanted func(path string) bool, found Found) error {
	dec := json.NewDecoder(in)
	var f sheaf.File
	var b64 struct{ path, link []byte }
	begun := false
	begin := func() error {
		if begun {
			return nil
		}
		begun = true
		if b64.path != nil {
			f.Path = string(b64.path)
		}
		if b64.link != nil {
			f.Link = string(b64.link)
		}
		if !wanted(f.Path) {
			return errOther
		}
		return found.File(f)
	}
	err := object(dec, func(key string) error {
		switch key {
		case "output":
			return dec.Decode(&f.Output)
		case "path":
			return dec.Decode(&f.Path)
		case "path_b64":
			return dec.Decode(&b64.path)
		case "size":
			return dec.Decode(&f.Size)
		case "sha256":
			return dec.Decode(&f.SHA256)
		case "mode":
			return dec.Decode(&f.Mode)
		case "link":
			return dec.Decode(&f.Link)
		case "link_b64":
			return dec.Decode(&b64.link)
		case "parts":
			if err := begin(); err != nil {
				return err
			}
			return parts(dec, found.Part)
		}
		var other json.RawMessage
		return dec.Decode(&other)
	})
	if err == nil {
		err = begin() // a link has no parts
	}
	switch {
	case errors.Is(err, errOther):
		return nil
	case errors.Is(err, io.EOF):
		return errCut
	}
	return err
}

// errCut is a manifest that ends within a line.
var errCut = fmt.Errorf("read the merged manifest: %w", io.ErrUnexpectedEOF)

// errOther ends the reading of a line that is not wanted.
var errOther = errors.New("another file")

// object reads an object's braces and keys; value reads what belongs to each.
func object(dec *json.Decoder, value func(key string) error) error {
	if _, err := dec.Token(); err != nil {
		return fmt.Errorf("read the merged manifest: %w", err)
	}
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return fmt.Errorf("read the merged manifest: %w", err)
		}
		name, _ := key.(string)
		if err := value(name); err != nil {
			return err
		}
	}
	_, err := dec.Token()
	return err
}

func parts(dec *json.Decoder, each func(sheaf.Part) error) error {
	if _, err := dec.Token(); err != nil {
		return fmt.Errorf("read the merged manifest: %w", err)
	}
	for dec.More() {
		var p sheaf.Part
		if err := dec.Decode(&p); err != nil {
			return fmt.Errorf("read the merged manifest: %w", err)
		}
		if err := each(p); err != nil {
			return err
		}
	}
	_, err := dec.Token()
	return err
}

// line is what remains of a line.
type line struct {
	in    *bufio.Reader
	rest  []byte // read, and not passed on yet
	ended bool
}

// Read implements io.Reader: it ends with the line.
func (l *line) Read(b []byte) (int, error) {
	for len(l.rest) == 0 {
		if l.ended {
			return 0, io.EOF
		}
		var err error
		l.rest, err = l.in.ReadSlice('\n')
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
		case err == nil || errors.Is(err, io.EOF):
			l.ended = true
		default:
			return 0, err
		}
	}
	n := copy(b, l.rest)
	l.rest = l.rest[n:]
	return n, nil
}

func (l *line) skip() error {
	if l.ended {
		return nil
	}
	return skipLine(l.in)
}

// skipLine reads to the end of the line.
func skipLine(in *bufio.Reader) error {
	for {
		if _, err := in.ReadSlice('\n'); !errors.Is(err, bufio.ErrBufferFull) {
			return err
		}
	}
}
