// Package archive turns archives into packs: one file with the contents of all
// members behind each other and a list of them, from which any member is read at once.
//
// Nothing of an archive is ever written under a name that it gives, so that no name can
// lead anywhere. Names that would (absolute ones, "..") are refused all the same, with the whole archive,
// as are two members of one name. A link to a member that is a file is that file; others are
// listed as what they are. How much comes out is bounded, also in proportion to what went in.
//
// Tar, plain or compressed by gzip or zstd, and zip are told apart by their first bytes.
// Archives within archives are files like any other.
package archive

import (
	"archive/tar"
	"archive/zip"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/klauspost/compress/zstd"

	"github.com/sheaf-run/agent/sheaf"
)

// Limits bound what comes out of an archive. Zero fields take the defaults.
type Limits struct {
	Bytes   int64  // of all members together; 64 GiB
	Members int    // 1,000,000
	Ratio   int64  // bytes out for each byte in, past Free; 100
	Free    int64  // bytes that come out whatever the ratio: logs full of zeros are no attack; 1 GiB
	Dir     string // for what has to be laid aside while it is read; the system's for temporary files
}

const (
	defaultBytes   = 64 << 30
	defaultMembers = 1_000_000
	// defaultRatio is far above what data compresses by, and far below a bomb, which makes a thousand of one
	// or, with members that overlap, a hundred million.
	defaultRatio = 100
	defaultFree  = 1 << 30
	// maxName bounds a member's path, as the kernel does.
	maxName = 4096
	// maxWindow bounds the memory that a zstd stream may ask for; what zstd --ultra -22 asks for.
	maxWindow = 128 << 20
)

func (l Limits) filled() Limits {
	if l.Bytes == 0 {
		l.Bytes = defaultBytes
	}
	if l.Members == 0 {
		l.Members = defaultMembers
	}
	if l.Ratio == 0 {
		l.Ratio = defaultRatio
	}
	if l.Free == 0 {
		l.Free = defaultFree
	}
	return l
}

func invalid(hint, format string, args ...any) error {
	return &sheaf.Error{Class: sheaf.Invalid, Field: "source", Msg: fmt.Sprintf(format, args...), Hint: hint}
}

func tooLarge(limit, format string, args ...any) error {
	return &sheaf.Error{Class: sheaf.TooLarge, Field: "source", Msg: fmt.Sprintf(format, args...), Limit: limit, Hint: "unpack it by hand, or make smaller archives"}
}

// Pack reads an archive to its end and writes its pack. What is wrong with the archive is an error of class
// Invalid or TooLarge; errors of r and w come as they are.
func Pack(ctx context.Context, r io.Reader, w io.Writer, limits Limits) error {
	in := &input{ctx: ctx, r: r}
	p := &packer{ctx: ctx, w: bufio.NewWriterSize(w, 1<<20), in: in, limits: limits.filled(), names: map[string]int{}}
	if err := p.read(); err != nil {
		if in.err != nil {
			return in.err // what the decoder made of it says less
		}
		return err
	}
	return p.finish()
}

// input counts what goes in, remembers why it broke, and stops with its context.
type input struct {
	ctx context.Context
	r   io.Reader
	n   int64
	err error
}

func (i *input) Read(b []byte) (int, error) {
	if err := i.ctx.Err(); err != nil {
		i.err = err
		return 0, err
	}
	n, err := i.r.Read(b)
	i.n += int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		i.err = err
	}
	return n, err
}

// read tells the kind by the first bytes.
func (p *packer) read() error {
	head := bufio.NewReaderSize(p.in, 64<<10)
	begin, err := head.Peek(512)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	switch {
	case bytes.HasPrefix(begin, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(head)
		if err != nil {
			return damaged(err)
		}
		return p.tar(z)
	case bytes.HasPrefix(begin, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(head, zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderConcurrency(1))
		if err != nil {
			return damaged(err)
		}
		defer z.Close()
		return p.tar(z)
	case bytes.HasPrefix(begin, []byte("PK\x03\x04")), bytes.HasPrefix(begin, []byte("PK\x05\x06")):
		return p.zip(head)
	case len(begin) >= 262 && string(begin[257:262]) == "ustar", len(begin) == 512 && len(bytes.Trim(begin, "\x00")) == 0:
		return p.tar(head)
	}
	return invalid("known are tar, tar.gz, tar.zst and zip; leave unpack out to read the file as it is", "it is no archive of a known kind")
}

func damaged(err error) error {
	return &sheaf.Error{Class: sheaf.Invalid, Field: "source", Msg: "the archive is damaged", Err: err, Hint: "make it again"}
}

// tar reads a tar stream to its end, with what its compression has behind it.
func (p *packer) tar(r io.Reader) error {
	t := tar.NewReader(r)
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return damaged(err)
		}
		name, err := p.name(h.Name)
		if err != nil {
			return err
		}
		if name == "" {
			continue // the archive's root
		}
		m := member{Path: name}
		switch h.Typeflag {
		case tar.TypeReg, tar.TypeGNUSparse:
			err = p.file(name, t)
		case tar.TypeDir:
			m.Kind = sheaf.EntryDir
			err = p.add(m)
		case tar.TypeSymlink:
			m.link = h.Linkname
			err = p.add(m)
		case tar.TypeLink:
			var to string
			if to, err = p.name(h.Linkname); err == nil {
				err = p.hardLink(name, to)
			}
		case tar.TypeFifo:
			m.Kind = sheaf.EntryFIFO
			err = p.add(m)
		case tar.TypeChar, tar.TypeBlock:
			m.Kind = sheaf.EntryDevice
			err = p.add(m)
		case tar.TypeXGlobalHeader:
		default:
			err = invalid("leave it out of the archive", "member %q is of the unknown type %q", name, h.Typeflag)
		}
		if err != nil {
			return err
		}
	}
	// The rest tells whether the compressed stream is whole.
	if _, err := io.Copy(io.Discard, io.LimitReader(r, p.left())); err != nil {
		return damaged(err)
	}
	return nil
}

// zip lays the archive aside, since its list stands at its end.
func (p *packer) zip(r io.Reader) error {
	f, err := os.CreateTemp(p.limits.Dir, "archive-*")
	if err != nil {
		return fmt.Errorf("lay the archive aside: %w", err)
	}
	defer f.Close()
	if err := os.Remove(f.Name()); err != nil { // it goes with its descriptor
		return fmt.Errorf("lay the archive aside: %w", err)
	}
	size, err := io.Copy(f, io.LimitReader(r, p.limits.Bytes+1))
	if err != nil {
		return fmt.Errorf("lay the archive aside: %w", err)
	}
	if size > p.limits.Bytes {
		return tooLarge(fmt.Sprintf("%d bytes", p.limits.Bytes), "the archive is larger than what it may hold")
	}
	z, err := zip.NewReader(f, size)
	if err != nil {
		return damaged(err)
	}
	if len(z.File) > p.limits.Members {
		return p.tooMany()
	}
	for _, m := range z.File {
		if err := p.zipped(m); err != nil {
			return err
		}
	}
	return nil
}

func (p *packer) zipped(m *zip.File) error {
	name, err := p.name(m.Name)
	if err != nil || name == "" {
		return err
	}
	if m.Flags&1 != 0 {
		return invalid("make it without a password", "member %q is encrypted", name)
	}
	mode := m.Mode()
	switch {
	case strings.HasSuffix(m.Name, "/") || mode.IsDir():
		return p.add(member{Path: name, Kind: sheaf.EntryDir})
	case mode&os.ModeSymlink == 0 && !mode.IsRegular():
		return p.add(member{Path: name, Kind: sheaf.EntryDevice})
	}
	r, err := m.Open()
	if err != nil {
		return damaged(fmt.Errorf("%q: %w", name, err))
	}
	defer r.Close()
	if mode&os.ModeSymlink == 0 {
		return p.file(name, r)
	}
	to, err := io.ReadAll(io.LimitReader(r, maxName+1))
	if err != nil {
		return damaged(fmt.Errorf("%q: %w", name, err))
	}
	return p.add(member{Path: name, link: string(to)})
}
