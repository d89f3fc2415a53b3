package publish

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/base64"
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
	"time"
	"unicode/utf8"

	"golang.org/x/sync/errgroup"

	"github.com/sheaf-run/agent/sheaf"
)

const (
	// atOnce is how many files are written at once: enough to hide a round trip to a service.
	atOnce = 16
	// largeAtOnce is how many of those may be large: each holds a part of its upload in memory.
	largeAtOnce = 3
	// ahead is how many files may be under way or wait for one before them, whose line comes first.
	ahead = 256
	// patience is how long a file is tried whose bytes cannot be had although the servers hold them to be
	// there: longer than they wait before they have it made again, which ends this attempt.
	patience = 10 * time.Minute
	// patiencePause between two such tries.
	patiencePause = time.Second
	// maxKey is how long the name of an object may be, in bytes, with what stands before it.
	maxKey = 900
)

// Input is what is to be published.
type Input struct {
	Run        sheaf.RunID
	Job        string
	Generation uint32
	Attempt    uint32
	Result     string    // digest of Manifest, hex
	Manifest   io.Reader // the merged manifest: JSON lines of sheaf.File
	// Open gives the bytes of a part of a merged file.
	Open func(ctx context.Context, f *sheaf.File, p sheaf.Part) (io.ReadCloser, error)
	// Damaged is told of a part whose bytes are not those that were committed.
	Damaged func(p sheaf.Part, reason string)
	Dir     string // for what does not fit into memory
}

// Write writes all files of a result below the attempt's folder, with their list and manifest, and
// makes them durable. Nobody sees them before [Finish]. It holds a bounded piece of the manifest. Where
// they go into a CAR file it gives the root of that, and else "".
func Write(ctx context.Context, p Place, in Input) (root string, err error) {
	w := writer{place: p, in: &in, dir: attemptDir(in.Run, in.Attempt), hash: sha256.New(), large: make(chan struct{}, largeAtOnce)}
	if err := clearEarlier(ctx, p, in.Run, in.Attempt); err != nil {
		return "", err
	}
	spool, err := os.CreateTemp(in.Dir, "publish-*")
	if err != nil {
		return "", fmt.Errorf("spool the list of files: %w", err)
	}
	defer spool.Close()
	if err := os.Remove(spool.Name()); err != nil {
		return "", fmt.Errorf("spool the list of files: %w", err)
	}
	list := bufio.NewWriterSize(spool, 256<<10)
	into := io.MultiWriter(list, w.hash)
	if dir, ok := p.(*dirPlace); ok && dir.packed {
		root, err = w.pack(ctx, dir, into)
	} else {
		err = w.files(ctx, into)
	}
	if err != nil {
		return "", err
	}
	if err := list.Flush(); err != nil {
		return "", fmt.Errorf("spool the list of files: %w", err)
	}
	return root, w.manifest(ctx, root, spool)
}

// manifest writes the list of files, and the manifest that names it.
func (w *writer) manifest(ctx context.Context, root string, list *os.File) error {
	size, err := list.Seek(0, io.SeekCurrent)
	if err != nil {
		return fmt.Errorf("spool the list of files: %w", err)
	}
	name, p, in := path.Join(w.dir, listName), w.place, w.in
	if err := p.Put(ctx, Object{Name: name, Size: size, Mode: 0o644}, func() (io.ReadCloser, error) {
		return io.NopCloser(io.NewSectionReader(list, 0, size)), nil
	}); err != nil {
		return fmt.Errorf("write the list of files: %w", err)
	}
	m := Manifest{
		Format: format, Run: in.Run, Job: in.Job, Generation: in.Generation, Attempt: in.Attempt, Files: w.count, Bytes: w.bytes,
		List: w.relative(name), ListSHA256: hex.EncodeToString(w.hash.Sum(nil)), Result: in.Result,
	}
	if root != "" {
		m.Car, m.Root = w.relative(path.Join(w.dir, carName)), root
	}
	data, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the manifest: %w", err)
	}
	data = append(data, '\n')
	if err := p.Put(ctx, Object{Name: path.Join(w.dir, stagedName), Size: int64(len(data)), Mode: 0o644}, func() (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader(string(data))), nil
	}); err != nil {
		return fmt.Errorf("write the manifest: %w", err)
	}
	return p.Sync(ctx)
}

// writer is a Write under way.
type writer struct {
	place Place
	in    *Input
	dir   string
	hash  hash.Hash // of the list
	count int64
	bytes int64
	large chan struct{}
}

// pending is a file under way. Its line is there when done is closed.
type pending struct {
	line File
	done chan struct{}
}

// files writes the files, several at once, and their lines in the order of the manifest.
func (w *writer) files(ctx context.Context, list io.Writer) error {
	g, ctx := errgroup.WithContext(ctx)
	queue := make(chan *pending, ahead)
	g.Go(func() error {
		enc := json.NewEncoder(list)
		enc.SetEscapeHTML(false)
		for x := range queue {
			select {
			case <-x.done:
			case <-ctx.Done():
				return ctx.Err()
			}
			if err := enc.Encode(x.line); err != nil {
				return fmt.Errorf("spool the list of files: %w", err)
			}
			w.count++
			w.bytes += x.line.Size
		}
		return ctx.Err()
	})
	g.Go(func() error {
		defer close(queue)
		workers, ctx := errgroup.WithContext(ctx)
		workers.SetLimit(atOnce)
		err := w.each(ctx, func(f *sheaf.File) error {
			x := &pending{done: make(chan struct{})}
			select {
			case queue <- x:
			case <-ctx.Done():
				return ctx.Err()
			}
			workers.Go(func() error {
				var err error
				if x.line, err = w.file(ctx, f); err != nil {
					return fmt.Errorf("publish %q of output %q: %w", clip(f.Path), f.Output, err)
				}
				close(x.done)
				return nil
			})
			return nil
		})
		if werr := workers.Wait(); werr != nil {
			return werr
		}
		return err
	})
	return g.Wait()
}

// each reads the merged manifest.
func (w *writer) each(ctx context.Context, fn func(*sheaf.File) error) error {
	for dec := json.NewDecoder(w.in.Manifest); ; {
		f := &sheaf.File{}
		err := dec.Decode(f)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err == nil:
			err = ctx.Err()
		default:
			err = fmt.Errorf("read the merged manifest: %w", err)
		}
		if err == nil {
			err = fn(f)
		}
		if err != nil {
			return err
		}
	}
}

// file writes one file and gives its line.
func (w *writer) file(ctx context.Context, f *sheaf.File) (File, error) {
	line := lineOf(f)
	o := Object{Name: path.Join(w.dir, outputsName, f.Output, plain(f.Path)), Size: f.Size, Mode: fs.FileMode(f.Mode) & fs.ModePerm, Link: f.Link}
	if f.Link != "" {
		return line, w.place.Put(ctx, o, nil)
	}
	if f.Size > maxHeld {
		select {
		case w.large <- struct{}{}:
			defer func() { <-w.large }()
		case <-ctx.Done():
			return line, ctx.Err()
		}
	}
	line.Name = w.relative(o.Name)
	var body *joined
	err := again(ctx, func() error {
		return w.place.Put(ctx, o, func() (io.ReadCloser, error) {
			body = w.join(ctx, f)
			return body, nil
		})
	})
	if err != nil {
		return line, err
	}
	line.SHA256 = hex.EncodeToString(body.sum.Sum(nil))
	return line, nil
}

// lineOf is what a file's line says whatever becomes of its bytes.
func lineOf(f *sheaf.File) File {
	line := File{Output: f.Output, Path: f.Path, Size: f.Size, Mode: f.Mode, Link: f.Link}
	if !utf8.ValidString(f.Path) {
		line.Path, line.B64 = "", base64.StdEncoding.EncodeToString([]byte(f.Path))
	}
	return line
}

// join reads a file.
func (w *writer) join(ctx context.Context, f *sheaf.File) *joined {
	return &joined{ctx: ctx, in: w.in, file: f, sum: sha256.New()}
}

// again tries what reads a file until its bytes can be had.
func again(ctx context.Context, do func() error) error {
	for since := time.Now(); ; {
		err := do()
		var u *unread
		if !errors.As(err, &u) || ctx.Err() != nil || time.Since(since) >= patience {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(patiencePause):
		}
	}
}

// relative is an object's name as it stands in the manifest.
func (w *writer) relative(name string) string { return strings.TrimPrefix(name, string(w.in.Run)+"/") }

// plain is a path as the name of an object. One that a service would not take, since it is no text or too
// long, is named by its digest; the list says which file it is.
func plain(p string) string {
	odd := len(p) > maxKey || !utf8.ValidString(p) || strings.IndexFunc(p, func(r rune) bool { return r < ' ' || r == 0x7f || r == 0xfffe || r == 0xffff }) >= 0
	if !odd {
		return p
	}
	sum := sha256.Sum256([]byte(p))
	return ".sha256-" + hex.EncodeToString(sum[:])
}

// clip shortens a name for a message.
func clip(name string) string {
	const most = 200
	if len(name) <= most {
		return name
	}
	return name[:most] + "…"
}
