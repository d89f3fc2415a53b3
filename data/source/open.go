package source

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sheaf-run/agent/sheaf"
)

// others are the kinds of source that the jobspec knows beside files.
var others = []string{"s3", "https", "ipfs", "car", "job"}

// Open opens the source at a URL, or at an absolute path of this machine. A
// scheme that the configuration has no opener for is an Unsupported error, an unknown one Invalid, a place that the
// configuration does not list Denied, and one that is not there NotFound.
func Open(rawURL string, cfg Config) (Source, error) {
	if scheme, _, ok := strings.Cut(rawURL, "://"); ok && cfg.Others[scheme] != nil {
		return cfg.Others[scheme](rawURL)
	}
	path, err := filePath(rawURL)
	if err != nil {
		return nil, err
	}
	return openFile(path, cfg.Files)
}

// filePath is the path that a file URL or a plain path names, clean.
func filePath(rawURL string) (string, error) {
	invalid := func(msg, hint string) error {
		return &sheaf.Error{Class: sheaf.Invalid, Field: "source", Msg: fmt.Sprintf("source %q %s", rawURL, msg), Hint: hint}
	}
	path := rawURL
	if scheme, rest, ok := strings.Cut(rawURL, "://"); ok && !strings.Contains(scheme, "/") {
		if scheme != "file" {
			if slices.Contains(others, scheme) {
				return "", &sheaf.Error{Class: sheaf.Unsupported, Field: "source", Msg: fmt.Sprintf("source %q: this client reads no %s:// sources", rawURL, scheme), Hint: "name one in its configuration, or copy the files to where it can read them: file:///…"}
			}
			return "", invalid("has the unknown scheme "+scheme, "write file:///path")
		}
		rest = strings.TrimPrefix(rest, "localhost")
		if !strings.HasPrefix(rest, "/") {
			return "", invalid("names a host", "a path is absolute and the URL has three slashes: file:///"+rest)
		}
		var err error
		if path, err = url.PathUnescape(rest); err != nil {
			return "", invalid("has a malformed %-escape", "write a literal % as %25, or give the plain path")
		}
	}
	switch {
	case path == "":
		return "", invalid("is empty", "write file:///path")
	case path[0] != '/':
		return "", invalid("is not absolute", "write file:///path")
	case strings.IndexByte(path, 0) >= 0:
		return "", invalid("holds a NUL byte", "no file has one in its name")
	}
	return filepath.Clean(path), nil
}

// openFile opens the directory or file at path if it lies, links resolved,
// below one of the roots.
func openFile(path string, roots []Root) (Source, error) {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		// Whether something is there is told only where jobs may look.
		if _, ok := allowedBy(path, roots); !ok {
			return nil, denied(path)
		}
		return nil, stepError("open source "+quote(path), "source", err)
	}
	root, ok := allowedBy(real, roots)
	if !ok {
		return nil, denied(path)
	}
	info, err := os.Lstat(real)
	if err != nil {
		return nil, stepError("open source "+quote(path), "source", err)
	}
	s := &fileSource{given: path, real: real, shared: root.Shared}
	switch {
	case info.IsDir():
	case info.Mode().IsRegular():
		s.real, s.only, s.target = filepath.Dir(real), filepath.Base(path), filepath.Base(real)
		s.given = s.real
	default:
		return nil, &sheaf.Error{Class: sheaf.Invalid, Field: "source", Msg: fmt.Sprintf("source %s is neither a directory nor a file", quote(path)), Hint: "name a directory, or one file"}
	}
	if s.dir, err = openRoot(s.real); err != nil {
		return nil, stepError("open source "+quote(path), "source", err)
	}
	return s, nil
}

// allowedBy is the deepest root that path lies in.
func allowedBy(path string, roots []Root) (Root, bool) {
	best, found := Root{}, false
	for _, r := range roots {
		real, err := filepath.EvalSymlinks(r.Path)
		if err != nil {
			continue // a root that is not there holds nothing
		}
		if _, ok := below(real, path); ok && (!found || len(real) > len(best.Path)) {
			best, found = Root{Path: real, Shared: r.Shared}, true
		}
	}
	return best, found
}

// below is path relative to dir, if it lies in it; both are absolute and clean.
func below(dir, path string) (rel string, ok bool) {
	switch {
	case path == dir:
		return "", true
	case dir == "/":
		return path[1:], true
	case strings.HasPrefix(path, dir) && path[len(dir)] == '/':
		return path[len(dir)+1:], true
	}
	return "", false
}

func denied(path string) error {
	return &sheaf.Error{
		Class: sheaf.Denied, Field: "source",
		Msg:  fmt.Sprintf("source %s lies in no directory that jobs may read on this client", quote(path)),
		Hint: fmt.Sprintf("add file_root %q {} to the client block of the agent's configuration", path),
	}
}

// stepError gives a file system's error its class and the step it came from.
func stepError(step, field string, err error) error {
	var own *sheaf.Error
	if errors.As(err, &own) {
		return fmt.Errorf("%s: %w", step, err)
	}
	class, hint := sheaf.Unavailable, ""
	msg := err
	var pe *fs.PathError
	if errors.As(err, &pe) {
		msg = pe.Err
	}
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENOTDIR):
		class, hint = sheaf.NotFound, "check the path: it must be there on each client that reads it"
	case errors.Is(err, fs.ErrPermission):
		class, hint = sheaf.Denied, "let the agent's user read it"
	}
	return &sheaf.Error{Class: class, Field: field, Msg: step, Err: msg, Hint: hint}
}

// quote writes a name for people, its control characters and stray bytes escaped.
func quote(name string) string { return fmt.Sprintf("%q", name) }
