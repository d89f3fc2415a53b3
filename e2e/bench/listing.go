package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sheaf-run/agent/api"
	"github.com/sheaf-run/agent/data/source"
	"github.com/sheaf-run/agent/data/source/s3"
	"github.com/sheaf-run/agent/sheaf"
)

const (
	listedObjects = 1_000_000

	splitClientTarget = 300 // MB, all that the client and its drivers take
	splitServerTarget = 150 // MB, all that the server takes
)

// input is many empty files, on disk or in a bucket, that jobs read.
type input struct {
	what    string
	files   int
	source  string // URL
	client  string // of its configuration, what it reaches the source by
	sources source.Config
}

// inBucket is n objects of a bucket, which there is until it is closed.
func inBucket(n int) (*input, func()) {
	bucket := newBucket(n)
	return &input{
		what: "objects of a bucket", files: n, source: "s3://" + bucketName + "/in/", client: bucket.config(),
		sources: source.Config{Others: map[string]source.Opener{"s3": s3.Opener([]s3.Bucket{{Pattern: bucketName, Endpoint: bucket.URL, Region: "us-east-1", PathStyle: true, Anonymous: true}})}},
	}, bucket.Close
}

// onDisk is a million files.
func (b *bench) onDisk(ctx context.Context) (*input, error) {
	n := b.scaled(listedObjects)
	dir, err := b.emptyFiles(ctx, n)
	if err != nil {
		return nil, err
	}
	return &input{
		what: "files on disk", files: n, source: "file://" + dir, client: fmt.Sprintf("  file_root %q {}\n", dir),
		sources: source.Config{Files: []source.Root{{Path: dir}}},
	}, nil
}

// emptyFiles makes n empty files, once for all parts.
func (b *bench) emptyFiles(ctx context.Context, n int) (string, error) {
	dir := b.root + filesSuffix
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	b.note("making %d files …", n)
	for i := range n {
		name := filepath.Join(dir, fmt.Sprintf("%04d", i/bucketDir), fmt.Sprintf("%09d.bin", i))
		if i%bucketDir == 0 {
			if err := errors.Join(ctx.Err(), os.MkdirAll(filepath.Dir(name), 0o755)); err != nil {
				return "", fmt.Errorf("make files: %w", err)
			}
		}
		if err := os.WriteFile(name, nil, 0o644); err != nil {
			return "", fmt.Errorf("make files: %w", err)
		}
	}
	unix.Sync() // what is written behind takes a processor from what is measured
	return dir, nil
}

// filesSuffix keeps the inputs apart from what the agents write, which is summed up every other second.
const filesSuffix = "-files"

// list is how long it takes to list an input, which is all that is done with it.
func (in *input) list(ctx context.Context) (time.Duration, error) {
	began := time.Now()
	tree, err := source.OpenTree([]sheaf.Input{{Name: "in", Source: in.source, Mount: "/in"}}, in.sources)
	if err != nil {
		return 0, err
	}
	defer func() { _ = tree.Close() }()
	files := 0
	err = tree.Walk(ctx, nil, func(entries []sheaf.Entry) error {
		for i := range entries {
			if entries[i].Kind == sheaf.EntryFile {
				files++
			}
		}
		return nil
	})
	if err == nil && files != in.files {
		err = fmt.Errorf("%d %s were listed, not %d", files, in.what, in.files)
	}
	return time.Since(began), err
}

// reading has the agent read a job over an input that does nothing with what it reads, and leaves a file for each partition.
func (p *process) reading(ctx context.Context, in *input, batch int) (sheaf.Job, error) {
	j, err := p.api.Parse(ctx, api.ParseRequest{HCL: fmt.Sprintf(`
job "reading" {
  reuse = true
  input "in" {
    source = %q
    mount  = "/in"
  }
  split {
    glob       = "/**/*.bin"
    batch_size = %d
  }
  task "noop" {
    driver = "mock"
    config {
      outputs = { "/out/done" = "done" }
    }
  }
  output "out" {
    path  = "/out"
    merge = "none"
  }
}`, in.source, batch)})
	if err != nil {
		return j, fmt.Errorf("read the job: %w", err)
	}
	return j, nil
}

// listing measures how long a million files are split, and what memory that takes
// of client and server, which are processes of their own.
func (b *bench) listing(ctx context.Context) error {
	bucket, done := inBucket(b.scaled(listedObjects))
	defer done()
	disk, err := b.onDisk(ctx)
	if err != nil {
		return err
	}
	for _, in := range []*input{bucket, disk} {
		for _, batch := range []int{1, 100} {
			if err := b.splitInput(ctx, in, batch); err != nil {
				return fmt.Errorf("%s: %w", in.what, err)
			}
		}
	}
	return nil
}

// splitInput measures the split of one input on agents that were just started.
func (b *bench) splitInput(ctx context.Context, in *input, batch int) error {
	server, client, err := b.apart(ctx, in.client)
	if err != nil {
		return err
	}
	defer server.stop()
	defer client.stop()
	job, err := server.reading(ctx, in, batch)
	if err != nil {
		return err
	}
	n := in.files
	alone, err := in.list(ctx)
	if err != nil {
		return err
	}
	before, err := peaks(server, client)
	if err != nil {
		return err
	}
	began := time.Now()
	reply, err := server.api.Submit(ctx, api.SubmitRequest{Job: job})
	if err != nil {
		return fmt.Errorf("submit: %w", err)
	}
	id, want := string(reply.Run.ID), (n+batch-1)/batch
	s, err := server.until(ctx, id, reply.Index, func(s sheaf.RunSummary) bool { return s.Partitions.Total > 0 })
	if err != nil {
		return err
	}
	took := time.Since(began)
	memory, err := peaks(server, client)
	if err != nil {
		return err
	}
	if s.Partitions.Total != want {
		return fmt.Errorf("run %s is %s with %d partitions, not %d: %s", id, s.Status, s.Partitions.Total, want, s.Error)
	}
	if _, err := server.api.Stop(ctx, id); err != nil {
		return fmt.Errorf("stop the run: %w", err)
	}
	what := fmt.Sprintf("%s split, %d a partition", in.what, batch)
	b.add(Figure{
		What: what + ", until sealed", Value: took.Seconds(), Unit: "s", AtMost: true,
		Limit: alone.Seconds(), LimitWhat: "listing alone", Detail: fmt.Sprintf("%s, %s", amount(float64(n), "files"), amount(float64(want), "partitions")),
	})
	for i, m := range []struct {
		who    string
		target float64
	}{{"server", splitServerTarget}, {"client", splitClientTarget}} {
		b.add(Figure{
			What: what + ", the " + m.who + "'s memory", Value: megabytes(memory[i]), Unit: "MB", Target: m.target, AtMost: true,
			Detail: fmt.Sprintf("the most that was resident of it and its drivers; %s before", amount(megabytes(before[i]), "MB")),
		})
	}
	return nil
}

// apart starts a server and a client of it as two processes.
func (b *bench) apart(ctx context.Context, config string) (server, client *process, err error) {
	server, gossip, err := b.configured(ctx, "server", "")
	if err != nil {
		return nil, nil, err
	}
	client, _, err = b.configured(ctx, "client", fmt.Sprintf("join = [%q]\nclient {\n  drivers = [\"mock\"]\n  slots = %d\n%s}\n", gossip, millionSlots, config))
	if err != nil {
		server.stop()
		return nil, nil, err
	}
	if err := server.clientReady(ctx); err != nil {
		client.stop()
		server.stop()
		return nil, nil, err
	}
	return server, client, nil
}

// until reads a run until it is as wanted, or over.
func (p *process) until(ctx context.Context, id string, index uint64, wanted func(sheaf.RunSummary) bool) (sheaf.RunSummary, error) {
	for {
		s, m, err := p.api.Summary(ctx, id, api.Read{Index: index, Wait: blockFor})
		if err != nil {
			return s, fmt.Errorf("watch run %s: %w; the agent's log:\n%s", id, err, p.tail())
		}
		if wanted(s) || s.Status.Terminal() {
			return s, nil
		}
		index = m.Index
	}
}

// peaks are the most that was ever resident of each agent with what it started, in bytes. Pages that several
// processes share count for each.
func peaks(agents ...*process) (all []int64, err error) {
	for _, a := range agents {
		most, err := rollup(a.cmd.Process.Pid, "status", "VmHWM:")
		if err != nil {
			return nil, err
		}
		all = append(all, most)
	}
	return all, nil
}
