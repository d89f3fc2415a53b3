package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sheaf-run/agent/api"
	"github.com/sheaf-run/agent/sheaf"
)

const (
	splitFiles   = 1_000_000
	splitPerDir  = 1000
	splitBatch   = 1000
	splitRounds  = 3
	splitBytes   = 8   // a file and its identity, at the server on disk
	splitAtLeast = 1.0 // of find's speed
)

// split measures how long a glob over a million files on disk takes, with sizes and times read, from
// the submission until the partitions are there; beside it find, which reads and prints the same.
func (b *bench) split(ctx context.Context) error {
	n := b.scaled(splitFiles)
	files := filepath.Join(b.root, "files")
	if err := manyFiles(ctx, files, n); err != nil {
		return err
	}
	defer os.RemoveAll(files)
	unix.Sync() // what is written behind takes a processor from what is measured
	a, err := b.dev(ctx, "split")
	if err != nil {
		return err
	}
	defer a.stop()
	job, err := a.api.Parse(ctx, api.ParseRequest{HCL: fmt.Sprintf(`
job "split" {
  reuse = true
  input "files" {
    source = "file://%s"
    mount  = "/in"
  }
  split {
    glob       = "/**"
    batch_size = %d
  }
  task "hold" {
    driver = "mock"
    config {
      duration = "1h"
    }
  }
}`, files, splitBatch)})
	if err != nil {
		return fmt.Errorf("read the job: %w", err)
	}
	var ours, finds []float64
	var manifest int64
	for range splitRounds {
		find, err := timedFind(ctx, files)
		if err != nil {
			return err
		}
		before, err := directorySize(a.dataDir)
		if err != nil {
			return err
		}
		took, err := a.splitOnce(ctx, job, (n+splitBatch-1)/splitBatch)
		if err != nil {
			return err
		}
		after, err := directorySize(a.dataDir)
		if err != nil {
			return err
		}
		ours, finds, manifest = append(ours, milliseconds(took)), append(finds, milliseconds(find)), max(manifest, after-before)
	}
	slices.Sort(ours)
	slices.Sort(finds)
	b.add(Figure{
		Key: "P8", What: fmt.Sprintf("%d files on disk split, median", n), Value: quantile(ours, 0.5), Unit: "ms", Target: quantile(finds, 0.5) / splitAtLeast, AtMost: true,
		Limit: quantile(finds, 0.5), LimitWhat: "find -printf '%s %T@ %p'", Detail: fmt.Sprintf("%d rounds, each beside find; from the submission to the partitions", splitRounds),
	})
	b.add(Figure{
		Key: "P8.state", What: "the state on disk for it, a file", Value: float64(manifest) / float64(n), Unit: "B", Target: splitBytes, AtMost: true,
		Detail: "all that the agent's directory grew by",
	})
	return nil
}

// splitOnce submits a job, waits until it is split, and deletes the run.
func (p *process) splitOnce(ctx context.Context, job sheaf.Job, partitions int) (time.Duration, error) {
	began := time.Now()
	reply, err := p.api.Submit(ctx, api.SubmitRequest{Job: job})
	if err != nil {
		return 0, fmt.Errorf("submit: %w", err)
	}
	id := string(reply.Run.ID)
	for index := reply.Index; ; {
		s, m, err := p.api.Summary(ctx, id, api.Read{Index: index, Wait: blockFor})
		if err != nil {
			return 0, fmt.Errorf("watch run %s: %w", id, err)
		}
		if s.Partitions.Total == partitions {
			break
		}
		if s.Status.Terminal() {
			return 0, fmt.Errorf("run %s is %s with %d partitions: %s", id, s.Status, s.Partitions.Total, s.Error)
		}
		index = m.Index
	}
	took := time.Since(began)
	if _, err := p.api.Stop(ctx, id); err != nil {
		return 0, fmt.Errorf("stop run %s: %w", id, err)
	}
	return took, nil
}

// manyFiles makes n files of a few bytes, a thousand to a directory.
func manyFiles(ctx context.Context, dir string, n int) error {
	for i := range n {
		at := filepath.Join(dir, fmt.Sprintf("d%04d", i/splitPerDir))
		if i%splitPerDir == 0 {
			if err := os.MkdirAll(at, 0o700); err != nil {
				return fmt.Errorf("make files: %w", err)
			}
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
		}
		if err := os.WriteFile(filepath.Join(at, fmt.Sprintf("record-%07d.json", i)), nil, 0o600); err != nil {
			return fmt.Errorf("make files: %w", err)
		}
	}
	return nil
}

func timedFind(ctx context.Context, dir string) (time.Duration, error) {
	cmd := exec.CommandContext(ctx, "find", dir, "-type", "f", "-printf", "%s %T@ %p\n")
	began := time.Now()
	if err := cmd.Run(); err != nil { // its output goes nowhere
		return 0, fmt.Errorf("find: %w", err)
	}
	return time.Since(began), nil
}

// directorySize is what the files below a directory take on disk, bytes. What goes meanwhile takes nothing.
func directorySize(dir string) (int64, error) {
	var sum int64
	err := filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		sum += info.Size()
		return nil
	})
	return sum, err
}
