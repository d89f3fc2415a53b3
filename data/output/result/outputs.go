package result

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
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
	// stubborn is how often in a row the bytes of a part are asked for again although nothing more of them came.
	stubborn = 3
)

// job is one file on its way.
type job struct {
	line    *output.Line
	name    string // in the folder
	sum     string
	kept    bool
	fetched int64 // bytes
	err     error
	done    chan struct{}
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
		return w.manifest(func(l *output.Line) error {
			j := &job{line: l, name: "outputs/" + l.Output + "/" + l.Path, done: make(chan struct{})}
			if l.Link != "" {
				links = append(links, j)
				close(j.done)
			}
			select {
			case ordered <- j:
			case <-ctx.Done():
				return ctx.Err()
			}
			if l.Link != "" {
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
		if err := w.link(&j.line.File, j.name); err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) listed(j *job) error {
	w.sum.Files++
	w.sum.Bytes += j.line.Size
	if j.kept {
		w.sum.Kept++
	} else {
		w.sum.Fetched += j.fetched
	}
	if w.src.Progress != nil {
		w.src.Progress(w.sum)
	}
	e := entry{Size: j.line.Size, SHA256: j.sum, Link: j.line.Link}
	if j.line.Count > 1 {
		return w.list.add(j.name, e, j.line.Each)
	}
	if err := j.line.Each(func(p sheaf.Part) error { e.of(p.Partition, p.Attempt); return nil }); err != nil {
		return err
	}
	return w.list.add(j.name, e, nil)
}

// manifest reads the merged manifest.
func (w *writer) manifest(fn func(*output.Line) error) error {
	return output.Lines(w.spool, w.spooled, func(l *output.Line) error {
		if err := checkFile(l); err != nil {
			return err
		}
		return fn(l)
	})
}

func checkFile(l *output.Line) error {
	if err := sheaf.CheckName("output", l.Output); err != nil {
		return err
	}
	if err := output.CheckPath(l.Path); err != nil {
		return err
	}
	if l.PartBytes != l.Size || l.Size < 0 {
		return fmt.Errorf("the parts of %q have %d of its %d bytes", output.Clip(l.Path), l.PartBytes, l.Size)
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
	} else if err == nil && st.Mode&unix.S_IFMT == unix.S_IFREG && st.Size == j.line.Size {
		f, err := openAt(at.dir, base, os.O_RDONLY)
		if err != nil {
			return err
		}
		c := &copying{w: w, line: j.line, buf: buf, there: f, left: st.Size}
		j.sum, err = c.do(ctx)
		f.Close()
		if err == nil && !c.missed {
			j.kept = true
			return nil
		}
	}
	temp := tempName(j.line)
	f, err := openAt(w.partial, temp, os.O_RDWR|os.O_CREATE)
	if errors.Is(err, fs.ErrPermission) { // an earlier try had given it its mode
		if err = w.root.Remove(partial + "/" + temp); err == nil {
			f, err = openAt(w.partial, temp, os.O_RDWR|os.O_CREATE)
		}
	}
	if err != nil {
		return err
	}
	var st os.FileInfo
	c := &copying{w: w, line: j.line, buf: buf, there: f, to: f}
	if st, err = f.Stat(); err == nil {
		c.left = st.Size()
		j.sum, err = c.do(ctx)
	}
	j.fetched = c.fetched
	if mode := fs.FileMode(j.line.Mode)&0o777 | 0o400; err == nil && mode != 0o644 {
		err = f.Chmod(mode) // readable by its owner, who may write the folder again
	}
	if err2 := f.Close(); err == nil {
		err = err2
	}
	if err == nil {
		err = renameAt(w.partial, temp, at.dir, base)
	}
	if err != nil {
		// What came stays for the next try, but for bytes that are not what they should be.
		if sheaf.ClassOf(err) == sheaf.Conflict {
			_ = w.root.Remove(partial + "/" + temp)
		}
		return fmt.Errorf("fetch %q of output %q: %w", output.Clip(j.line.Path), j.line.Output, err)
	}
	return nil
}

// tempName is where a file lies that is not whole. The next try finds it by the same name.
func tempName(l *output.Line) string {
	h := sha256.New()
	_, _ = fmt.Fprintf(h, "%s/%s\n%d %d %s", l.Output, l.Path, l.Size, l.Count, l.SHA256)
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// link makes a link that leads to a place in its own output. Where that is a
// name that the merge gave to another file, the link leads nowhere.
func (w *writer) link(f *sheaf.File, name string) error {
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
