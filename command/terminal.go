package command

import (
	"io"
	"os"

	"golang.org/x/term"
)

// terminal reports whether w is one that a person looks at.
func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd())) && os.Getenv("TERM") != "dumb"
}
