package publish

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"

	"github.com/ipfs/go-cid"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/sheaf-run/agent/data/source/car"
	"github.com/sheaf-run/agent/sheaf"
)

// partCar is what a CAR file is called while it is written.
const partCar = ".result.car.part"

// pack writes the files into a CAR file, with their lines in the order of the manifest, and gives its root.
func (w *writer) pack(ctx context.Context, d *dirPlace, list io.Writer) (root string, err error) {
	part := path.Join(w.dir, partCar)
	if err := d.makeDirs(w.dir); err != nil {
		return "", err
	}
	f, err := d.root.OpenFile(part, os.O_RDWR|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return "", failedFile("write "+part, err)
	}
	defer f.Close()
	c, err := car.NewWriter(ctx, f, w.in.Dir)
	if err != nil {
		return "", failedFile("write "+part, err)
	}
	defer c.Close()
	enc := json.NewEncoder(list)
	enc.SetEscapeHTML(false)
	err = w.inOrder(ctx, func(x *fetched) error {
		line, err := w.packOne(ctx, c, x)
		if err != nil {
			return failedFile(fmt.Sprintf("publish %q of output %q", clip(x.file.Path), x.file.Output), err)
		}
		w.count++
		w.bytes += line.Size
		if err := enc.Encode(line); err != nil {
			return fmt.Errorf("spool the list of files: %w", err)
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	found, err := c.Finish()
	if err == nil {
		err = errors.Join(f.Chmod(0o644), f.Sync())
	}
	if err == nil {
		err = d.root.Rename(part, path.Join(w.dir, carName))
	}
	if err != nil {
		return "", failedFile("write "+part, err)
	}
	return found.String(), nil
}

// packOne adds a file, and gives its line.
func (w *writer) packOne(ctx context.Context, c *car.Writer, x *fetched) (File, error) {
	f, line := x.file, lineOf(x.file)
	name := f.Output + "/" + f.Path
	var root cid.Cid
	var err error
	switch {
	case f.Link != "":
		root, err = c.AddLink(name, f.Link)
	case x.data != nil:
		root, err = c.Add(name, bytes.NewReader(x.data))
		line.SHA256 = x.sha256
	default:
		err = again(ctx, func() error {
			body := w.join(ctx, f)
			defer body.Close()
			var err error
			root, err = c.Add(name, body)
			line.SHA256 = hex.EncodeToString(body.sum.Sum(nil))
			return err
		})
	}
	if err != nil {
		return line, err
	}
	line.CID = root.String()
	return line, nil
}

// fetched is a file whose turn comes. What is done is ready when done is closed.
type fetched struct {
	file   *sheaf.File
	done   chan struct{}
	data   []byte // of a small file; large ones are read when it is their turn
	sha256 string // of data, hex
}

// inOrder calls fn for each file, in the order of the manifest. Small files are fetched ahead, several at once.
func (w *writer) inOrder(ctx context.Context, fn func(*fetched) error) error {
	g, ctx := errgroup.WithContext(ctx)
	queue := make(chan *fetched, atOnce)
	room := make(chan struct{}, atOnce) // of those between the manifest and the end of fn
	g.Go(func() error {
		for x := range queue {
			select {
			case <-x.done:
			case <-ctx.Done():
				return ctx.Err()
			}
			if err := fn(x); err != nil {
				return err
			}
			<-room
		}
		return ctx.Err()
	})
	g.Go(func() error {
		defer close(queue)
		return w.each(ctx, func(f *sheaf.File) error {
			select {
			case room <- struct{}{}:
			case <-ctx.Done():
				return ctx.Err()
			}
			x := &fetched{file: f, done: make(chan struct{})}
			queue <- x // has a place for whoever has room
			if f.Link != "" || f.Size > maxHeld {
				close(x.done)
				return nil
			}
			g.Go(func() error {
				err := again(ctx, func() error {
					body := w.join(ctx, f)
					defer body.Close()
					data, err := io.ReadAll(body)
					if data == nil {
						data = []byte{}
					}
					x.data, x.sha256 = data, hex.EncodeToString(body.sum.Sum(nil))
					return err
				})
				if err != nil {
					return fmt.Errorf("publish %q of output %q: %w", clip(f.Path), f.Output, err)
				}
				close(x.done)
				return nil
			})
			return nil
		})
	})
	return g.Wait()
}
