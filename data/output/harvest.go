package output

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sheaf-run/agent/sheaf"
)

// Bounds of one attempt's outputs.
const (
	// MaxFiles is how many files an attempt may leave when its limits name no
	// number: a manifest of them is some 200 MB, the most that is worth holding.
	MaxFiles = 1_000_000
	// MaxPath is the longest path below an output, in bytes: what the kernel
	// takes in one call.
	MaxPath = 4095
	// MaxDepth is how deep directories may nest below an output; each level
	// holds a descriptor open while it is walked.
	MaxDepth = 128

	readBuffer = 128 << 10 // bytes read at once: above this sha256 is what costs
	nameBatch  = 1024      // names taken from a directory at once
)

// Dir is one output directory of an attempt.
type Dir struct {
	Name   string // the output's
	Host   string // where it lies on this host
	Target string // its path as the task saw it; links into it are understood
}

// Limits bound what an attempt may leave.
type Limits struct {
	Bytes int64 // of all files together; 0 is no limit
	Files int   // 0 is MaxFiles
}

// Harvest lists and digests what an attempt left in its output directories.
// It follows no link. A link that leads to something inside the same output is kept
// as a link; one that leads outside or nowhere, and a FIFO, socket or device, is an
// error that names it. Empty directories leave no trace. The limits are checked
// before a file is read, so that a huge sparse file costs nothing.
//
// Errors of class Invalid and TooLarge are the task's fault.
func Harvest(ctx context.Context, dirs []Dir, limits Limits) (Manifest, error) {
	if limits.Files == 0 {
		limits.Files = MaxFiles
	}
	h := harvester{ctx: ctx, limits: limits, hash: sha256.New()}
	for _, d := range dirs {
		if err := h.output(d); err != nil {
			return Manifest{}, fmt.Errorf("harvest output %q: %w", d.Name, err)
		}
	}
	sortFiles(h.found.Files)
	return h.found, nil
}

type harvester struct {
	ctx    context.Context
	limits Limits
	found  Manifest
	dir    Dir
	root   *os.Root // of dir, to resolve links
	hash   hash.Hash
	buf    []byte
}

func (h *harvester) output(d Dir) error {
	fd, err := unix.Open(d.Host, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return taskFault(sheaf.Invalid, "the output directory cannot be opened", err)
	}
	// By the descriptor: the name may lead elsewhere by now.
	root, err := os.OpenRoot("/proc/self/fd/" + strconv.Itoa(fd))
	if err != nil {
		_ = unix.Close(fd)
		return err
	}
	defer func() { _ = root.Close() }()
	h.dir, h.root = d, root
	return h.walk(fd, "", 0)
}

// walk takes over the descriptor of the directory at prefix, which is "" or
// ends in a slash.
func (h *harvester) walk(fd int, prefix string, depth int) error {
	dir := os.NewFile(uintptr(fd), prefix)
	defer dir.Close()
	if depth > MaxDepth {
		return &sheaf.Error{Class: sheaf.TooLarge, Msg: fmt.Sprintf("directory %q is nested too deep", Clip(prefix)), Limit: strconv.Itoa(MaxDepth) + " levels", Hint: "write fewer directories into each other"}
	}
	for {
		if err := h.ctx.Err(); err != nil {
			return err
		}
		entries, err := dir.ReadDir(nameBatch)
		for _, e := range entries {
			if err := h.entry(fd, prefix+e.Name(), e, depth); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read directory %q: %w", Clip(prefix), err)
		}
	}
}

func (h *harvester) entry(dirfd int, p string, e fs.DirEntry, depth int) error {
	if len(p) > MaxPath {
		return &sheaf.Error{Class: sheaf.TooLarge, Msg: fmt.Sprintf("path %q is %d bytes long", Clip(p), len(p)), Limit: strconv.Itoa(MaxPath) + " bytes", Hint: "shorten the names"}
	}
	switch e.Type() {
	case fs.ModeDir:
		fd, err := unix.Openat(dirfd, e.Name(), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return taskFault(sheaf.Invalid, fmt.Sprintf("directory %q cannot be opened", Clip(p)), err)
		}
		return h.walk(fd, p+"/", depth+1)
	case 0:
		return h.file(dirfd, p, e.Name())
	case fs.ModeSymlink:
		return h.link(dirfd, p, e.Name())
	}
	return &sheaf.Error{Class: sheaf.Invalid, Field: "output", Msg: fmt.Sprintf("%q is a %s", Clip(p), kindName(e.Type())), Hint: "an output may hold files, directories and links inside it"}
}

func (h *harvester) count(p string, size int64) error {
	if len(h.found.Files) >= h.limits.Files {
		return &sheaf.Error{Class: sheaf.TooLarge, Field: "output", Msg: fmt.Sprintf("the outputs hold more than %d files, %q being one too many", h.limits.Files, Clip(p)), Limit: strconv.Itoa(h.limits.Files) + " files", Hint: "pack small files into one, or make smaller partitions"}
	}
	if h.limits.Bytes > 0 && size > h.limits.Bytes-h.found.Bytes {
		return &sheaf.Error{Class: sheaf.TooLarge, Field: "output", Msg: fmt.Sprintf("the outputs are too large: %q has %d bytes on top of %d", Clip(p), size, h.found.Bytes), Limit: sheaf.Size(h.limits.Bytes).String(), Hint: "raise task.resources.disk or write less"}
	}
	h.found.Bytes += size
	return nil
}

func (h *harvester) file(dirfd int, p, name string) error {
	// O_NONBLOCK: whatever took the file's place meanwhile cannot hold us up.
	fd, err := unix.Openat(dirfd, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return taskFault(sheaf.Invalid, fmt.Sprintf("file %q cannot be opened", Clip(p)), err)
	}
	defer func() { _ = unix.Close(fd) }()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("stat %q: %w", Clip(p), err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return &sheaf.Error{Class: sheaf.Invalid, Msg: fmt.Sprintf("%q changed its kind while it was harvested", Clip(p))}
	}
	if err := h.count(p, st.Size); err != nil {
		return err
	}
	sum, n, err := h.digest(fd, st.Size)
	if err != nil {
		return fmt.Errorf("read %q: %w", Clip(p), err)
	}
	if n != st.Size {
		return &sheaf.Error{Class: sheaf.Invalid, Msg: fmt.Sprintf("%q was written to while it was harvested", Clip(p)), Hint: "the task must end only when all that it started has ended"}
	}
	h.found.Files = append(h.found.Files, sheaf.File{Output: h.dir.Name, Path: p, Size: n, SHA256: sum, Mode: st.Mode & 0o777})
	return nil
}

// emptySum is the digest of no bytes.
var emptySum = hex.EncodeToString(sha256.New().Sum(nil))

// digest hashes the file and gives how many bytes there were, at most size and one read more.
func (h *harvester) digest(fd int, size int64) (string, int64, error) {
	if size == 0 {
		return emptySum, 0, nil
	}
	if h.buf == nil {
		h.buf = make([]byte, readBuffer)
	}
	h.hash.Reset()
	var n int64
	for n <= size {
		if err := h.ctx.Err(); err != nil {
			return "", n, err
		}
		k, err := unix.Read(fd, h.buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return "", n, err
		}
		if k == 0 {
			break
		}
		h.hash.Write(h.buf[:k])
		n += int64(k)
		if n == size && k < len(h.buf) {
			break
		}
	}
	var sum [sha256.Size]byte
	return hex.EncodeToString(h.hash.Sum(sum[:0])), n, nil
}

func (h *harvester) link(dirfd int, p, name string) error {
	buf := make([]byte, MaxPath+1)
	n, err := unix.Readlinkat(dirfd, name, buf)
	if err != nil {
		return fmt.Errorf("read link %q: %w", Clip(p), err)
	}
	target := string(buf[:n])
	bad := func(why string) error {
		return &sheaf.Error{Class: sheaf.Invalid, Field: "output", Msg: fmt.Sprintf("link %q leads to %q, %s", Clip(p), Clip(target), why), Hint: "write the file itself, or a link to a file of the same output"}
	}
	rel := target
	if path.IsAbs(target) {
		inside, ok := below(h.dir.Target, target)
		if !ok {
			return bad("outside of the output")
		}
		if rel, err = filepath.Rel("/"+path.Dir(p), "/"+inside); err != nil {
			return bad("outside of the output")
		}
	}
	// The path is not cleaned: ".." behind a link means the link's parent.
	info, err := h.root.Stat(path.Dir(p) + "/" + rel)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return bad("where nothing is")
	case errors.Is(err, unix.ELOOP):
		return bad("round in a circle")
	case err != nil:
		return bad("outside of the output")
	case !info.Mode().IsRegular() && !info.IsDir():
		return bad("which is a " + kindName(info.Mode().Type()))
	}
	if err := h.count(p, 0); err != nil {
		return err
	}
	h.found.Files = append(h.found.Files, sheaf.File{Output: h.dir.Name, Path: p, Link: rel, Mode: 0o777})
	return nil
}

// below gives p relative to the directory dir when it is dir or lies in it.
func below(dir, p string) (string, bool) {
	p = path.Clean(p)
	if dir == "" {
		return "", false
	}
	if p == dir {
		return ".", true
	}
	return strings.CutPrefix(p, strings.TrimSuffix(dir, "/")+"/")
}

func kindName(m fs.FileMode) string {
	switch {
	case m&fs.ModeNamedPipe != 0:
		return "FIFO"
	case m&fs.ModeSocket != 0:
		return "socket"
	case m&fs.ModeDevice != 0:
		return "device"
	}
	return "special file"
}

func taskFault(class sheaf.Class, msg string, err error) error {
	return &sheaf.Error{Class: class, Field: "output", Msg: msg, Err: err}
}
