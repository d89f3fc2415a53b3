package archive

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/sheaf-run/agent/sheaf"
)

// A pack is the contents, then a list of members, then a foot: where the list begins (8
// bytes, big endian), its sha256, and magic. A member in the list is its kind (a byte), the
// length of its path, the path and, for files, place and size as varints and the sha256.
const magic = "SHFPACK1"

const footSize = 8 + sha256.Size + len(magic)

// member is an entry of the archive.
type member struct {
	Path   string
	Kind   sheaf.EntryKind // 0 for a symlink until all members are known
	offset int64
	size   int64
	digest [sha256.Size]byte
	link   string // of a symlink, where it leads
}

// packer writes a pack.
type packer struct {
	ctx     context.Context
	in      *input
	w       *bufio.Writer
	at      int64 // bytes of contents written
	limits  Limits
	members []member
	names   map[string]int  // path to its place in members
	dirs    map[string]bool // that have something below them, once a link asks
	buf     []byte
}

// name is a member's clean path, "" for the archive's root. It may say "./" in front and "/" behind.
func (p *packer) name(given string) (string, error) {
	const hint = "make the archive from within the directory, as in tar -C DIR -cf x.tar ."
	switch {
	case len(given) > maxName:
		return "", tooLarge(fmt.Sprintf("%d bytes", maxName), "the name of a member has %d bytes", len(given))
	case strings.IndexByte(given, 0) >= 0:
		return "", invalid(hint, "the name %q of a member holds a NUL", given)
	case strings.HasPrefix(given, "/"):
		return "", invalid(hint, "member %q has an absolute path", given)
	}
	for part := range strings.SplitSeq(given, "/") {
		if part == ".." {
			return "", invalid(hint, "member %q leads out of the archive", given)
		}
	}
	clean := path.Clean(given)
	if clean == "." {
		return "", nil
	}
	return clean, nil
}

func (p *packer) tooMany() error {
	return tooLarge(fmt.Sprintf("%d members", p.limits.Members), "the archive has too many members")
}

// add takes a member in. A directory may come twice.
func (p *packer) add(m member) error {
	if i, twice := p.names[m.Path]; twice {
		if m.Kind == sheaf.EntryDir && p.members[i].Kind == sheaf.EntryDir {
			return nil
		}
		return invalid("make it again, with each file once", "member %q stands in the archive twice", m.Path)
	}
	if len(p.members) == p.limits.Members {
		return p.tooMany()
	}
	p.names[m.Path] = len(p.members)
	p.members = append(p.members, m)
	return nil
}

// left is how many bytes may come out still.
func (p *packer) left() int64 {
	return max(0, min(p.limits.Bytes, max(p.limits.Free, p.in.n*p.limits.Ratio))-p.at)
}

// file takes a file in with its content.
func (p *packer) file(name string, r io.Reader) error {
	m := member{Path: name, Kind: sheaf.EntryFile, offset: p.at}
	if p.buf == nil {
		p.buf = make([]byte, 256<<10)
	}
	h := sha256.New()
	for {
		if err := p.ctx.Err(); err != nil {
			return err
		}
		n, err := r.Read(p.buf)
		if int64(n) > p.left() {
			return tooLarge(fmt.Sprintf("%d bytes, and %d for each byte of the archive", p.limits.Bytes, p.limits.Ratio), "unpacking stopped at member %q: more comes out than may", name)
		}
		h.Write(p.buf[:n])
		p.at += int64(n)
		if _, err := p.w.Write(p.buf[:n]); err != nil {
			return fmt.Errorf("write the pack: %w", err)
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return damaged(fmt.Errorf("%q: %w", name, err))
		}
	}
	m.size = p.at - m.offset
	h.Sum(m.digest[:0])
	return p.add(m)
}

// hardLink takes in another name of a file that came before.
func (p *packer) hardLink(name, to string) error {
	i, ok := p.names[to]
	if !ok || p.members[i].Kind != sheaf.EntryFile {
		return invalid("make it again from files alone", "member %q is a hard link to %q, which is no file before it", name, to)
	}
	m := p.members[i]
	m.Path = name
	return p.add(m)
}

// finish follows the links and writes the list and the foot.
func (p *packer) finish() error {
	followed := make([]member, len(p.members))
	for i, m := range p.members {
		if followed[i] = m; m.Kind == 0 {
			followed[i] = p.follow(m)
		}
	}
	var list []byte
	for _, m := range followed {
		list = append(list, byte(m.Kind))
		list = binary.AppendUvarint(list, uint64(len(m.Path)))
		list = append(list, m.Path...)
		if m.Kind == sheaf.EntryFile {
			list = binary.AppendUvarint(list, uint64(m.offset))
			list = binary.AppendUvarint(list, uint64(m.size))
			list = append(list, m.digest[:]...)
		}
	}
	sum := sha256.Sum256(list)
	foot := append(binary.BigEndian.AppendUint64(nil, uint64(p.at)), sum[:]...)
	foot = append(foot, magic...)
	for _, b := range [][]byte{list, foot} {
		if _, err := p.w.Write(b); err != nil {
			return fmt.Errorf("write the pack: %w", err)
		}
	}
	if err := p.w.Flush(); err != nil {
		return fmt.Errorf("write the pack: %w", err)
	}
	return nil
}

// maxLinks is how many links one path may lead through, as in the kernel.
const maxLinks = 40

// follow is what the link m leads to, under its name.
func (p *packer) follow(m member) member {
	if strings.HasPrefix(m.link, "/") {
		return member{Path: m.Path, Kind: sheaf.EntryEscape}
	}
	rest := strings.Split(m.link, "/")
	at := path.Dir(m.Path)
	for links := 1; len(rest) > 0; {
		part := rest[0]
		rest = rest[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			if at == "." {
				return member{Path: m.Path, Kind: sheaf.EntryEscape}
			}
			at = path.Dir(at)
			continue
		}
		at = path.Join(at, part)
		i, ok := p.names[at]
		switch {
		case !ok && p.isDir(at):
		case !ok || len(rest) > 0 && p.members[i].Kind == sheaf.EntryFile:
			return member{Path: m.Path, Kind: sheaf.EntryDangling}
		case p.members[i].Kind == 0:
			next := p.members[i].link
			if links++; links > maxLinks {
				return member{Path: m.Path, Kind: sheaf.EntryDangling}
			}
			if strings.HasPrefix(next, "/") {
				return member{Path: m.Path, Kind: sheaf.EntryEscape}
			}
			rest = append(strings.Split(next, "/"), rest...)
			at = path.Dir(at)
		}
	}
	if i, ok := p.names[at]; ok && p.members[i].Kind != sheaf.EntryDir {
		to := p.members[i]
		to.Path = m.Path
		return to
	}
	return member{Path: m.Path, Kind: sheaf.EntryDirLink}
}

// isDir reports whether something lies below a path that is no member itself.
func (p *packer) isDir(dir string) bool {
	if p.dirs == nil {
		p.dirs = map[string]bool{".": true}
		for _, m := range p.members {
			for d := path.Dir(m.Path); !p.dirs[d]; d = path.Dir(d) {
				p.dirs[d] = true
			}
		}
	}
	return p.dirs[dir]
}

func tag(digest []byte) string { return "sha256:" + hex.EncodeToString(digest) }
