package merge

import (
	"io"
	"os"

	"github.com/sheaf-run/agent/sheaf"
)

// maxParts is how much of the parts of one file is held in memory, in bytes: some four hundred parts. A file may be
// joined of all partitions of a run.
const maxParts = 64 << 10

// spool takes the parts of a file, whose size stands before them and is known behind the last, and gives them as the items
// of a JSON array. What does not fit into memory lies in a file that has no name.
type spool struct {
	dir  string
	n    int    // parts
	held []byte // of them, behind what is in f
	f    *os.File
	out  int64 // bytes in f
}

func (s *spool) add(p sheaf.Part) error {
	if s.n++; s.n > 1 {
		s.held = append(s.held, ',')
	}
	if s.held = p.AppendJSON(s.held); len(s.held) < maxParts {
		return nil
	}
	if s.f == nil {
		f, err := os.CreateTemp(s.dir, "merge-")
		if err != nil {
			return err
		}
		s.f = f
		if err := os.Remove(f.Name()); err != nil {
			return err
		}
	}
	if _, err := s.f.WriteAt(s.held, s.out); err != nil {
		return err
	}
	s.out, s.held = s.out+int64(len(s.held)), s.held[:0]
	return nil
}

// drain writes what was added, and begins anew.
func (s *spool) drain(w io.Writer) error {
	if s.out > 0 {
		if _, err := io.Copy(w, io.NewSectionReader(s.f, 0, s.out)); err != nil {
			return err
		}
	}
	_, err := w.Write(s.held)
	s.n, s.held, s.out = 0, s.held[:0], 0
	return err
}

func (s *spool) close() {
	if s.f != nil {
		_ = s.f.Close() // it is gone with it
	}
}
