package result

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/sheaf-run/agent/data/output"
	"github.com/sheaf-run/agent/sheaf"
)

const (
	// ahead is how many files may be under way or wait for an earlier one to be listed.
	ahead = 64
	// maxLine is the longest line of a manifest, in bytes: a file joined of a million parts.
	maxLine = 256 << 20
)

// job is one file on its way.
type job struct {
	file sheaf.File
	name string // in the folder
	sum  string
	kept bool
	err  error
	done chan struct{}
}

// outputs writes the outputs. Files are fetched concurrently and listed in the manifest's order.
func (w *writer) outputs(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	todo := make(chan *job)
	ordered := make(chan *job, ahead)
	var links []*job
	g.Go(func() error {
		defer close(todo)
		defer close(ordered)
		return w.manifest(func(f sheaf.File) error {
			j := &job{file: f, name: "outputs/" + f.Output + "/" + f.Path, done: make(chan struct{})}
			if f.Link != "" {
				links = append(links, j)
				close(j.done)
			}
			select {
			case ordered <- j:
			case <-ctx.Done():
				return ctx.Err()
			}
			if f.Link != "" {
				return nil
			}
			select {
			case todo <- j:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	})
	for range Workers {
		g.Go(func() error {
			buf := make([]byte, 256<<10)
			var at place
			defer at.leave()
			for j := range todo {
				if j.err = w.file(ctx, j, buf, &at); j.err != nil {
					return j.err
				}
				close(j.done)
			}
			return nil
		})
	}
	g.Go(func() error {
		for j := range ordered {
			select {
			case <-j.done:
			case <-ctx.Done():
				return ctx.Err()
			}
			if err := w.listed(j); err != nil {
				return err
			}
		}
		return nil
	})
	if err := g.Wait(); err != nil {
		return err
	}
	for _, j := range links {
		if err := w.link(j.file, j.name); err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) listed(j *job) error {
	w.sum.Files++
	w.sum.Bytes += j.file.Size
	if j.kept {
		w.sum.Kept++
	} else {
		w.sum.Fetched += j.file.Size
	}
	if w.src.Progress != nil {
		w.src.Progress(w.sum)
	}
	e := entry{Size: j.file.Size, SHA256: j.sum, Link: j.file.Link}
	switch n := len(j.file.Parts); {
	case n == 1:
		e.of(j.file.Parts[0].Partition, j.file.Parts[0].Attempt)
	case n > 1:
		for _, p := range j.file.Parts {
			e.Parts = append(e.Parts, piece{p.Partition, p.Attempt, p.Size, p.SHA256})
		}
	}
	return w.list.add(j.name, e)
}

// manifest reads the merged manifest and checks it as a whole.
func (w *writer) manifest(fn func(sheaf.File) error) error {
	sum := sha256.New()
	lines := bufio.NewScanner(io.TeeReader(w.src.Manifest, sum))
	lines.Buffer(make([]byte, 0, 64<<10), maxLine)
	for n := 1; lines.Scan(); n++ {
		var f sheaf.File
		err := json.Unmarshal(lines.Bytes(), &f)
		if err == nil {
			err = checkFile(&f)
		}
		if err == nil {
			err = fn(f)
		}
		if err != nil {
			return fmt.Errorf("merged manifest, line %d: %w", n, err)
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read merged manifest: %w", err)
	}
	if got := hex.EncodeToString(sum.Sum(nil)); w.src.SHA256 != "" && got != w.src.SHA256 {
		return &sheaf.Error{Class: sheaf.Conflict, Msg: fmt.Sprintf("the merged manifest has the digest %s, the run's result %s", got, w.src.SHA256)}
	}
	return nil
}

func checkFile(f *sheaf.File) error {
	if err := sheaf.CheckName("output", f.Output); err != nil {
		return err
	}
	if err := output.CheckPath(f.Path); err != nil {
		return err
	}
	var size int64
	for _, p := range f.Parts {
		if p.Size < 0 || p.Size > f.Size-size {
			return fmt.Errorf("the parts of %q have more than its %d bytes", output.Clip(f.Path), f.Size)
		}
		size += p.Size
	}
	if size != f.Size {
		return fmt.Errorf("the parts of %q have %d of its %d bytes", output.Clip(f.Path), size, f.Size)
	}
	return nil
}

// file makes sure of one file.
func (w *writer) file(ctx context.Context, j *job, buf []byte, at *place) error {
	if err := at.enter(w, path.Dir(j.name)); err != nil {
		return fmt.Errorf("make directory of %q: %w", j.name, err)
	}
	// What may be there is never a link: rename puts the new file in its place.
	base := path.Base(j.name)
	if st, err := lstatAt(at.dir, base); err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
		if err := w.root.RemoveAll(j.name); err != nil {
			return err
		}
	} else if err == nil && st.Mode&unix.S_IFMT == unix.S_IFREG && st.Size == j.file.Size {
		f, err := openAt(at.dir, base, os.O_RDONLY)
		if err != nil {
			return err
		}
		j.sum, err = w.parts(&j.file, io.Discard, buf, func(sheaf.Part) (io.ReadCloser, error) { return io.NopCloser(f), nil })
		f.Close()
		if err == nil {
			j.kept = true
			return nil
		}
	}
	temp := path.Base(w.tempName())
	f, err := openAt(w.partial, temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return err
	}
	j.sum, err = w.parts(&j.file, f, buf, func(p sheaf.Part) (io.ReadCloser, error) { return w.src.Fetch(ctx, j.file, p) })
	if mode := fs.FileMode(j.file.Mode)&0o777 | 0o400; err == nil && mode != 0o644 {
		err = f.Chmod(mode) // readable by its owner, who may write the folder again
	}
	if err2 := f.Close(); err == nil {
		err = err2
	}
	if err == nil {
		err = renameAt(w.partial, temp, at.dir, base)
	}
	if err != nil {
		_ = w.root.Remove(partial + "/" + temp)
		return fmt.Errorf("fetch %q of output %q: %w", output.Clip(j.file.Path), j.file.Output, err)
	}
	return nil
}

// parts copies the parts of a file in order, each checked against its size
// and digest, and gives the digest of the whole.
func (w *writer) parts(f *sheaf.File, to io.Writer, buf []byte, open func(sheaf.Part) (io.ReadCloser, error)) (string, error) {
	whole := sha256.New()
	for _, p := range f.Parts {
		part := whole
		if len(f.Parts) > 1 {
			part = sha256.New()
		}
		if err := copyPart(p, to, whole, part, buf, open); err != nil {
			return "", err
		}
		if got := hex.EncodeToString(part.Sum(nil)); got != p.SHA256 {
			return "", &sheaf.Error{Class: sheaf.Conflict, Msg: fmt.Sprintf("partition %d, attempt %d: the bytes have the digest %s, not %s", p.Partition, p.Attempt, got, p.SHA256), Hint: "try again, or make it again by agent job retry -partition"}
		}
	}
	sum := hex.EncodeToString(whole.Sum(nil))
	if f.SHA256 != "" && f.SHA256 != sum {
		return "", &sheaf.Error{Class: sheaf.Conflict, Msg: fmt.Sprintf("the file has the digest %s, not %s", sum, f.SHA256)}
	}
	return sum, nil
}

func copyPart(p sheaf.Part, to io.Writer, whole, part hash.Hash, buf []byte, open func(sheaf.Part) (io.ReadCloser, error)) error {
	r, err := open(p)
	if err != nil {
		return err
	}
	defer r.Close()
	for left := p.Size; left > 0; {
		n, err := r.Read(buf[:min(int64(len(buf)), left)])
		if _, err := to.Write(buf[:n]); err != nil {
			return err
		}
		whole.Write(buf[:n])
		if part != whole {
			part.Write(buf[:n])
		}
		left -= int64(n)
		if errors.Is(err, io.EOF) && left > 0 {
			return fmt.Errorf("partition %d, attempt %d: the bytes end %d early: %w", p.Partition, p.Attempt, left, io.ErrUnexpectedEOF)
		}
		if err != nil && left > 0 {
			return err
		}
	}
	return nil
}

// link makes a link that leads to a place in its own output. Where that is a
// name that the merge gave to another file, the link leads nowhere.
func (w *writer) link(f sheaf.File, name string) error {
	bad := &sheaf.Error{Class: sheaf.Invalid, Msg: fmt.Sprintf("link %q of output %q leads to %q, outside of the output", output.Clip(f.Path), f.Output, output.Clip(f.Link))}
	if inside := path.Join("/-", path.Dir(f.Path), f.Link); path.IsAbs(f.Link) || inside != "/-" && !strings.HasPrefix(inside, "/-/") {
		return bad
	}
	if err := w.makeDir(path.Dir(name)); err != nil {
		return err
	}
	if err := w.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := w.root.Symlink(f.Link, name); err != nil {
		return fmt.Errorf("make link %q of output %q: %w", output.Clip(f.Path), f.Output, err)
	}
	own, err := w.root.OpenRoot("outputs/" + f.Output)
	if err != nil {
		return err
	}
	defer func() { _ = own.Close() }()
	// Through other links it may leave although its spelling does not.
	if _, err := own.Stat(f.Path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		_ = w.root.Remove(name)
		return bad
	}
	return nil
}
