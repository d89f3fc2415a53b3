// Package source lists and opens the files of a job's inputs.
//
// A [Source] is one input's place. It lists in bytewise order of the path, so
// that the same files give the same listing, and never reads outside its root, whatever links lie
// there. [Tree] puts the sources of a job at their mounts and lists them as one tree, in
// order. Every kind of source passes the suite in data/source/sourcetest.
//
// All methods may be called concurrently. Splitting what was listed is package
// data/shard's; laying files out for a task is data/stage's.
package source

import (
	"context"
	"errors"
	"io"
	"os"

	"github.com/sheaf-run/agent/sheaf"
)

// ErrChanged is returned (wrapped) by Open when a file is no longer what its
// identity says, and by [File.Check] when it changed while it was read.
var ErrChanged = errors.New("changed since it was listed")

// BatchEntries is the largest number of entries handed to a listing's callback at once:
// large enough that the call costs nothing, small enough that a stop is noticed.
const BatchEntries = 1024

// Source is the files of one input.
type Source interface {
	// List hands every entry that the scope wants to yield, in bytewise order
	// of the path (relative to the root), in batches of at most [BatchEntries].
	// The slice is the source's again when yield returns; its strings stay valid. An error
	// of yield ends the listing and is returned. The root itself is not listed.
	// A directory that cannot be read is an error; a file that vanishes meanwhile is not listed.
	List(ctx context.Context, scope Scope, yield func([]sheaf.Entry) error) error

	// Stat is the entry at a path relative to the root; links are followed as in List. What is
	// not there is a NotFound error.
	Stat(ctx context.Context, path string) (sheaf.Entry, error)

	// Open opens the file at a path relative to the root for reading. Where
	// identity is not empty and the file has another, the error is ErrChanged.
	Open(ctx context.Context, path, identity string) (File, error)

	// Local is the absolute path of the file at path on this machine, with
	// links resolved, for sources that have one; "" is the root, where it is a directory.
	Local(path string) (host string, ok bool)

	// Shared reports whether other nodes with the same configuration see the
	// same files.
	Shared() bool

	// Close gives up what the source holds. Files that are open stay so.
	Close() error
}

// Scope is the part of a source that a listing wants.
type Scope struct {
	Below string // a directory relative to the root; "" is the root. Only what lies below it is listed

	// Descend reports whether what lies in a directory (relative to the root) is wanted; nil wants all. It
	// is called concurrently. The directory itself is listed either way.
	Descend func(dir string) bool
}

// File is an open file of a source.
type File interface {
	io.ReadCloser
	io.ReaderAt

	// Entry is the file as it was when it was opened.
	Entry() sheaf.Entry

	// Check returns ErrChanged when the file is no longer what it was when
	// it was opened.
	Check() error

	// Host is the open file of this machine, for sources that have one, else
	// nil. It stays the File's to close.
	Host() *os.File
}

// Config is what this machine lets jobs read.
type Config struct {
	Files []Root // for file sources

	// Others are the kinds of source beside file://, by scheme.
	Others map[string]Opener
}

// Opener opens the source at a URL of one scheme.
type Opener func(rawURL string) (Source, error)

// Root is a directory that jobs may read, with all below it.
type Root struct {
	Path   string // absolute; "/" allows any
	Shared bool   // every node that lists it sees the same files
}
