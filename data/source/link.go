package source

import (
	"errors"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sheaf-run/agent/sheaf"
)

// maxLinks is how many links one path may lead through, as in the kernel.
const maxLinks = 40

var (
	// errEscape is returned by resolve for a path that leads out of the source.
	errEscape = &sheaf.Error{Class: sheaf.Invalid, Msg: "the link leads out of the source", Hint: "put the file itself there, or widen the source"}
	// errLoop is returned by resolve after maxLinks links.
	errLoop = &sheaf.Error{Class: sheaf.Invalid, Msg: "the link leads round in a circle"}
)

// follow says what a link leads to, without looking outside the root.
func (s *fileSource) follow(name string) fileStat {
	st, err := s.dir.stat(name)
	if errors.Is(err, unix.EXDEV) {
		// An absolute link, or one through "..", may still end inside.
		var inside string
		if inside, err = s.resolve(name); err == nil {
			st, err = s.dir.stat(inside)
		}
	}
	switch {
	case errors.Is(err, errEscape), errors.Is(err, unix.EXDEV):
		return fileStat{kind: sheaf.EntryEscape}
	case err != nil:
		return fileStat{kind: sheaf.EntryDangling}
	case st.kind == sheaf.EntryDir:
		st.kind = sheaf.EntryDirLink
	}
	return st
}

// resolve is the path in the root of what name leads to, through no link. It
// reads only links that lie in the root: what the path would pass outside is compared
// by its spelling alone, so that nothing is learned of the machine's other files.
func (s *fileSource) resolve(name string) (string, error) {
	rest := strings.Split(name, "/")
	var at []string
	for links := 0; len(rest) > 0; {
		part := rest[0]
		rest = rest[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			if len(at) == 0 && s.real == "/" {
				continue
			}
			if len(at) == 0 {
				back, ok := s.reenter(filepath.Dir(s.real) + "/" + strings.Join(rest, "/"))
				if !ok {
					return "", errEscape
				}
				rest = back
				continue
			}
			at = at[:len(at)-1]
			continue
		}
		at = append(at, part)
		target, err := s.dir.readlink(strings.Join(at, "/"))
		if errors.Is(err, unix.EINVAL) { // no link
			continue
		} else if err != nil {
			return "", err
		}
		if links++; links > maxLinks {
			return "", errLoop
		}
		at = at[:len(at)-1]
		if strings.HasPrefix(target, "/") {
			back, ok := s.reenter(target + "/" + strings.Join(rest, "/"))
			if !ok {
				return "", errEscape
			}
			at, rest = at[:0], back
			continue
		}
		rest = append(strings.Split(target, "/"), rest...)
	}
	return strings.Join(at, "/"), nil
}

// reenter is what is left of an absolute path once it has come to the root,
// if it does so by its spelling.
func (s *fileSource) reenter(path string) (rest []string, ok bool) {
	parts := strings.Split(path, "/")
	if s.real == "/" {
		return parts, true
	}
	here := ""
	for i, part := range parts {
		switch part {
		case "", ".":
			continue
		case "..":
			// Behind a name of the outside, which may be a link, ".." could be anywhere.
			if !strings.HasPrefix(s.real, here+"/") {
				return nil, false
			}
			here = here[:max(0, strings.LastIndexByte(here, '/'))]
			continue
		}
		if here += "/" + part; here == s.real || here == s.given {
			return parts[i+1:], true
		}
	}
	return nil, false
}
