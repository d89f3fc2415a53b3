package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/sheaf-run/agent/api"
	"github.com/sheaf-run/agent/data/output/result"
	"github.com/sheaf-run/agent/sheaf"
)

// progressEvery is how often a long download says how far it is.
const progressEvery = 10 * time.Second

// download writes a run's result to a folder.
func (e *env) download(ctx context.Context, c *api.Client, run, dir string, o downloadOptions) error {
	s, _, err := c.Summary(ctx, run, api.Read{})
	if err != nil {
		return err
	}
	id := string(s.ID)
	// The streams end with this context, whether or not they were read to their end.
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	manifest, err := manifestOf(ctx, c, id, o)
	if err != nil {
		return err
	}
	defer manifest.Close()
	src := result.Source{
		Run: s.ID, Manifest: manifest,
		Fetch: func(ctx context.Context, f sheaf.File, p sheaf.Part, offset int64) (io.ReadCloser, error) {
			path := f.Path
			if p.Path != "" {
				path = p.Path
			}
			return c.File(ctx, id, p, f.Output, path, offset)
		},
		Partitions: partitionsOf(ctx, c, id, o.partitions),
	}
	if !o.partial {
		src.SHA256 = s.ResultSHA
	}
	said := time.Now()
	src.Progress = func(p result.Summary) {
		if time.Since(said) > progressEvery {
			said = time.Now()
			e.hint("%s, %s", counted(int(p.Files), "file"), humanize.IBytes(uint64(p.Bytes)))
		}
	}
	sum, err := result.Write(ctx, dir, src)
	if errors.Is(err, context.Canceled) {
		return &outcome{code: exitInterrupts, text: "interrupted: give the same command again, and it goes on where it stopped"}
	}
	if err != nil {
		return fmt.Errorf("write result to %s: %w", dir, err)
	}
	e.hint("%s: %s of output, %s, beside what the partitions printed", dir, counted(int(sum.Files), "file"), humanize.IBytes(uint64(sum.Bytes)))
	return nil
}

// manifestOf is the merged manifest as it comes, byte for byte as it was sealed; for a partial result
// one made of the partitions' own, each in a folder by its number.
func manifestOf(ctx context.Context, c *api.Client, run string, o downloadOptions) (io.ReadCloser, error) {
	if !o.partial {
		return c.ResultManifest(ctx, run)
	}
	r, w := io.Pipe()
	go func() {
		w.CloseWithError(c.Records(ctx, run, o.partitions, false, func(r api.Record) error {
			var lines []byte
			for _, f := range r.Files {
				part := sheaf.Part{Partition: r.Partition, Attempt: r.Attempt, Path: f.Path, Size: f.Size, SHA256: f.SHA256}
				f.Path = fmt.Sprintf("%d/%s", r.Partition, f.Path)
				f.Parts = []sheaf.Part{part}
				lines = append(f.AppendJSON(lines), '\n')
			}
			_, err := w.Write(lines)
			return err
		}))
	}()
	return r, nil
}

// partitionsOf streams the partitions' logs and exit codes. A record whose
// logs are long comes in pieces, which are passed on as they come: stdout first.
func partitionsOf(ctx context.Context, c *api.Client, run string, of sheaf.Ranges) iter.Seq2[result.Partition, error] {
	return func(yield func(result.Partition, error) bool) {
		ctx, stop := context.WithCancel(ctx)
		pieces := make(chan api.Record)
		failed := make(chan error, 1)
		go func() {
			defer close(pieces)
			failed <- c.Records(ctx, run, of, true, func(r api.Record) error {
				select {
				case pieces <- r:
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			})
		}()
		defer func() {
			stop()
			for range pieces {
			}
		}()
		for first := range pieces {
			rec := &recordReader{pieces: pieces, out: first.Stdout, err: first.Stderr, more: first.More}
			p := result.Partition{Index: first.Partition, Attempt: first.Attempt, ExitCode: first.ExitCode, Stdout: stdoutOf{rec}, Stderr: stderrOf{rec}}
			if !yield(p, nil) {
				return
			}
			rec.skip()
		}
		if err := <-failed; err != nil {
			yield(result.Partition{}, err)
		}
	}
}

// recordReader gives a record's logs as they come. Stdout is read before
// stderr; what comes of stderr meanwhile is held.
type recordReader struct {
	pieces   <-chan api.Record
	out, err []byte
	more     bool
}

func (r *recordReader) next() bool {
	if !r.more {
		return false
	}
	p, ok := <-r.pieces
	if !ok {
		r.more = false
		return false
	}
	r.out, r.err, r.more = append(r.out, p.Stdout...), append(r.err, p.Stderr...), p.More
	return true
}

func (r *recordReader) skip() {
	for r.next() {
		r.out, r.err = nil, nil
	}
}

func (r *recordReader) read(b []byte, from *[]byte) (int, error) {
	for len(*from) == 0 {
		if !r.next() {
			return 0, io.EOF
		}
	}
	n := copy(b, *from)
	*from = (*from)[n:]
	return n, nil
}

type stdoutOf struct{ *recordReader }

func (s stdoutOf) Read(b []byte) (int, error) { return s.read(b, &s.out) }

type stderrOf struct{ *recordReader }

func (s stderrOf) Read(b []byte) (int, error) { return s.read(b, &s.err) }
