package result

import (
	"context"
	"crypto/sha256"
	"encoding"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"

	"github.com/sheaf-run/agent/data/output"
	"github.com/sheaf-run/agent/sheaf"
)

// errMissed says that a file that is only looked at is not what it should be.
var errMissed = errors.New("the bytes are others")

// copying makes one file of its parts. What an earlier try has left of it is read and counts as far as it has the
// digests of its parts; a part that was cut is gone on with where it ends.
type copying struct {
	w     *writer
	line  *output.Line
	buf   []byte
	there *os.File // what there is already, from its beginning
	left  int64    // bytes of that
	to    *os.File // nil only looks; otherwise the same file

	whole   hash.Hash
	at      int64 // where the next part begins
	fetched int64
	missed  bool // it only looked, and not all was there
}

// do gives the digest of the whole.
func (c *copying) do(ctx context.Context) (string, error) {
	c.whole = sha256.New()
	if err := c.line.Each(func(p sheaf.Part) error { return c.part(ctx, p) }); err != nil {
		if errors.Is(err, errMissed) {
			c.missed = true
			return "", nil
		}
		return "", err
	}
	sum := hex.EncodeToString(c.whole.Sum(nil))
	if c.line.SHA256 != "" && c.line.SHA256 != sum {
		if c.to == nil {
			c.missed = true
			return "", nil
		}
		return "", &sheaf.Error{Class: sheaf.Conflict, Msg: fmt.Sprintf("the file has the digest %s, not %s", sum, c.line.SHA256)}
	}
	if c.to != nil {
		return sum, c.to.Truncate(c.at)
	}
	return sum, nil
}

// part copies one part, checked against its size and digest.
func (c *copying) part(ctx context.Context, p sheaf.Part) error {
	sum, have := sha256.New(), min(c.left, p.Size)
	before := c.whole
	if have > 0 && c.to != nil { // it may have to be taken back
		var err error
		if c.whole, err = clone(before); err != nil {
			return err
		}
	}
	if have > 0 {
		if err := c.add(sum, io.NewSectionReader(c.there, c.at, have), have); err != nil {
			return err
		}
		c.left -= have
	}
	if c.to != nil && have < p.Size {
		if err := c.fetch(ctx, p, have, sum); err != nil {
			return err
		}
	}
	got := hex.EncodeToString(sum.Sum(nil))
	if got != p.SHA256 && c.to == nil {
		return errMissed
	}
	if got != p.SHA256 && have > 0 { // what was there is damaged, and what follows may be
		c.whole, sum, c.left = before, sha256.New(), 0
		if err := c.fetch(ctx, p, 0, sum); err != nil {
			return err
		}
		got = hex.EncodeToString(sum.Sum(nil))
	}
	if got != p.SHA256 {
		return &sheaf.Error{Class: sheaf.Conflict, Msg: fmt.Sprintf("partition %d, attempt %d: the bytes have the digest %s, not %s", p.Partition, p.Attempt, got, p.SHA256), Hint: "try again, or make it again by agent job retry -partition"}
	}
	c.at += p.Size
	return nil
}

// fetch gets a part from an offset on. A transfer that breaks is gone on with where it broke.
func (c *copying) fetch(ctx context.Context, p sheaf.Part, from int64, sum hash.Hash) error {
	for failed := 0; from < p.Size; {
		n, err := c.stream(ctx, p, from, sum)
		from += n
		c.fetched += n
		switch {
		case err == nil:
			continue
		case ctx.Err() != nil:
			return ctx.Err()
		case n > 0:
			failed = 0
		}
		if failed++; failed >= stubborn || !broken(err) {
			return err
		}
	}
	return nil
}

// broken reports whether a transfer ended in its midst, so that asking for the rest makes sense.
func broken(err error) bool {
	_, answered := errors.AsType[*sheaf.Error](err)
	_, here := errors.AsType[*os.PathError](err) // no room
	return !answered && !here
}

// stream gets what one transfer gives, and says how much that was.
func (c *copying) stream(ctx context.Context, p sheaf.Part, from int64, sum hash.Hash) (n int64, err error) {
	r, err := c.w.src.Fetch(ctx, c.line.File, p, from)
	if err != nil {
		return 0, err
	}
	defer r.Close()
	for n < p.Size-from {
		k, err := r.Read(c.buf[:min(int64(len(c.buf)), p.Size-from-n)])
		if k > 0 {
			if _, err := c.to.WriteAt(c.buf[:k], c.at+from+n); err != nil {
				return n, err
			}
			c.whole.Write(c.buf[:k])
			sum.Write(c.buf[:k])
			n += int64(k)
		}
		switch left := p.Size - from - n; {
		case left == 0:
		case errors.Is(err, io.EOF):
			return n, fmt.Errorf("partition %d, attempt %d: the bytes end %d early: %w", p.Partition, p.Attempt, left, io.ErrUnexpectedEOF)
		case err != nil:
			return n, err
		}
	}
	return n, nil
}

// add reads n bytes of what is there.
func (c *copying) add(sum hash.Hash, r io.Reader, n int64) error {
	for n > 0 {
		k, err := io.ReadFull(r, c.buf[:min(int64(len(c.buf)), n)])
		if err != nil {
			return fmt.Errorf("read what is there already: %w", err)
		}
		c.whole.Write(c.buf[:k])
		sum.Write(c.buf[:k])
		n -= int64(k)
	}
	return nil
}

// clone is a hash that goes on where h is.
func clone(h hash.Hash) (hash.Hash, error) {
	state, err := h.(encoding.BinaryMarshaler).MarshalBinary()
	if err != nil {
		return nil, err
	}
	next := sha256.New()
	return next, next.(encoding.BinaryUnmarshaler).UnmarshalBinary(state)
}
