package publish

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/sheaf-run/agent/sheaf"
)

// joined reads the parts of a merged file, one after the other, and checks each against its digest.
type joined struct {
	ctx  context.Context // of the write: a read has none of its own
	in   *Input
	file *sheaf.File
	next int
	sum  hash.Hash // of all

	part io.ReadCloser
	own  hash.Hash // of the part
	left int64     // of the part
}

// unread is why a part could not be read. Its node may come back, or the servers have the output made
// again, which ends the attempt.
type unread struct{ error }

func (u *unread) Unwrap() error { return u.error }

// Read reads on. The last byte of a part is given when the part was checked.
func (j *joined) Read(b []byte) (int, error) {
	for {
		if j.part == nil {
			if j.next == len(j.file.Parts) {
				return 0, io.EOF
			}
			if err := j.open(); err != nil {
				return 0, err
			}
			continue
		}
		if len(b) == 0 {
			return 0, nil
		}
		n, err := j.part.Read(b)
		j.own.Write(b[:n])
		j.sum.Write(b[:n])
		j.left -= int64(n)
		p := j.file.Parts[j.next]
		switch {
		case j.left < 0:
			return 0, j.damaged(p, fmt.Sprintf("it has more than its %d bytes", p.Size))
		case err != nil && !errors.Is(err, io.EOF):
			return 0, j.bad(p, err)
		case errors.Is(err, io.EOF) && j.left > 0:
			return 0, j.damaged(p, fmt.Sprintf("%d of its %d bytes are missing", j.left, p.Size))
		}
		if j.left == 0 {
			if got := hex.EncodeToString(j.own.Sum(nil)); got != p.SHA256 {
				return 0, j.damaged(p, fmt.Sprintf("its digest is %s, not %s", got, p.SHA256))
			}
			_ = j.part.Close() // it was read whole
			j.part = nil
			j.next++
		}
		if n > 0 {
			return n, nil
		}
	}
}

// open opens the next part that holds anything.
func (j *joined) open() error {
	p := j.file.Parts[j.next]
	if p.Size == 0 {
		j.next++
		return nil
	}
	part, err := j.in.Open(j.ctx, j.file, p)
	if err != nil {
		return j.bad(p, err)
	}
	j.part, j.own, j.left = part, sha256.New(), p.Size
	return nil
}

func (j *joined) bad(p sheaf.Part, err error) error {
	return &unread{fmt.Errorf("read what partition %d (attempt %d, node %s) wrote: %w", p.Partition, p.Attempt, p.Node, err)}
}

func (j *joined) damaged(p sheaf.Part, reason string) error {
	j.in.Damaged(p, fmt.Sprintf("%q of output %q: %s", clip(cmp.Or(p.Path, j.file.Path)), j.file.Output, reason))
	return j.bad(p, errors.New(reason))
}

// Close closes the part that is open.
func (j *joined) Close() error {
	if j.part == nil {
		return nil
	}
	return j.part.Close()
}
