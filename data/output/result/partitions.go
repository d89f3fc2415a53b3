package result

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"os"
	"strconv"
)

// streams are the names of the two logs.
var streams = [2]string{"stdout", "stderr"}

// partitions writes each partition's logs and exit code, and the logs of all.
func (w *writer) partitions(ctx context.Context) error {
	var all [2]*sink
	for i, name := range streams {
		s, err := newSink(w.root, partial+"/"+name, 64<<10)
		if err != nil {
			return err
		}
		defer s.f.Close()
		all[i] = s
	}
	if w.src.Partitions != nil {
		if err := w.makeDir("partitions"); err != nil {
			return err
		}
		last := -1
		buf := make([]byte, 64<<10)
		for p, err := range w.src.Partitions {
			if err == nil {
				err = ctx.Err()
			}
			if err == nil && p.Index <= last {
				err = fmt.Errorf("partition %d came after %d", p.Index, last)
			}
			if err == nil {
				err = w.partition(p, all, buf)
			}
			if err != nil {
				return fmt.Errorf("write logs of partitions: %w", err)
			}
			last = p.Index
		}
	}
	for i, name := range streams {
		e, err := all[i].finish()
		if err == nil {
			err = w.root.Rename(partial+"/"+name, name)
		}
		if err == nil {
			err = w.list.add(name, e, nil)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) partition(p Partition, all [2]*sink, buf []byte) error {
	dir := "partitions/" + strconv.Itoa(p.Index)
	if err := w.makeDir(dir); err != nil {
		return err
	}
	w.mu.Lock()
	delete(w.dirs, dir) // it comes once
	w.mu.Unlock()
	for i, from := range []io.Reader{p.Stdout, p.Stderr} {
		if err := w.log(dir+"/"+streams[i], p, from, all[i], buf); err != nil {
			return err
		}
	}
	code := strconv.Itoa(p.ExitCode) + "\n"
	return w.small(dir+"/exit_code", p, code)
}

// log writes one log to the partition's file and behind the others'.
func (w *writer) log(name string, p Partition, from io.Reader, all *sink, buf []byte) error {
	if from == nil {
		return w.small(name, p, "")
	}
	own, err := newSink(w.root, name, 0)
	if err != nil {
		return err
	}
	_, err = io.CopyBuffer(struct{ io.Writer }{io.MultiWriter(own, all)}, struct{ io.Reader }{from}, buf)
	e, err2 := own.finish()
	if err == nil {
		err = err2
	}
	if err2 := own.f.Close(); err == nil {
		err = err2
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	e.of(p.Index, p.Attempt)
	return w.list.add(name, e, nil)
}

// small writes a file of a few bytes.
func (w *writer) small(name string, p Partition, content string) error {
	if err := w.root.WriteFile(name, []byte(content), 0o644); err != nil {
		return err
	}
	sum := sha256.Sum256([]byte(content))
	e := entry{Size: int64(len(content)), SHA256: hex.EncodeToString(sum[:])}
	e.of(p.Index, p.Attempt)
	return w.list.add(name, e, nil)
}

// sink is a file that is digested as it is written.
type sink struct {
	f    *os.File
	buf  *bufio.Writer // nil where writes are few
	sum  hash.Hash
	size int64
}

func newSink(root *os.Root, name string, buffer int) (*sink, error) {
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return nil, err
	}
	s := &sink{f: f, sum: sha256.New()}
	if buffer > 0 {
		s.buf = bufio.NewWriterSize(f, buffer)
	}
	return s, nil
}

// Write appends.
func (s *sink) Write(b []byte) (n int, err error) {
	s.sum.Write(b)
	s.size += int64(len(b))
	if s.buf != nil {
		return s.buf.Write(b)
	}
	return s.f.Write(b)
}

func (s *sink) finish() (entry, error) {
	var err error
	if s.buf != nil {
		err = s.buf.Flush()
	}
	return entry{Size: s.size, SHA256: hex.EncodeToString(s.sum.Sum(nil))}, err
}
