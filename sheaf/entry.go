package sheaf

import "strconv"

// EntryKind is what a listing found at a path.
type EntryKind uint8

// The kinds. A link is followed when it is listed: one to a file inside its
// source is an EntryFile with the size and identity of the target.
const (
	EntryFile     EntryKind = iota + 1
	EntryDir                // its content follows, where it was wanted
	EntryDirLink            // a link to a directory inside the source; not descended
	EntryEscape             // a link that leads out of the source
	EntryDangling           // a link to nothing, or round in a circle
	EntryFIFO
	EntrySocket
	EntryDevice
)

var entryKindNames = [...]string{"", "file", "directory", "link to a directory", "link out of the source", "dangling link", "FIFO", "socket", "device"}

// String is the kind in words.
func (k EntryKind) String() string {
	if int(k) < len(entryKindNames) {
		return entryKindNames[k]
	}
	return "unknown"
}

// Entry is one thing that a listing found. Listings are in bytewise order of
// the path.
type Entry struct {
	Path  string // bytes, "/"-separated; what it is relative to is said by whoever lists
	Input int32  // the input's place in Job.Inputs; -1 for a directory above several
	Kind  EntryKind
	Size  int64  // bytes, of files
	MTime int64  // ns since 1970, of files in sources that have nothing better
	Tag   string // "sha256:…" or "etag:…", of files in sources that have one
}

// Identity is what the source promises of the file's content, as in [Atom].
func (e *Entry) Identity() string {
	if e.Tag != "" {
		return e.Tag
	}
	return StatIdentity(e.Size, e.MTime)
}

// StatIdentity is the identity "stat:<size>:<mtime>" of a file of size bytes
// that was last written mtime ns after 1970.
func StatIdentity(size, mtime int64) string {
	var b [48]byte
	return string(strconv.AppendInt(append(strconv.AppendInt(append(b[:0], "stat:"...), size, 10), ':'), mtime, 10))
}
