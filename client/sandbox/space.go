package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/sheaf-run/agent/data/output"
	"github.com/sheaf-run/agent/data/output/store"
	"github.com/sheaf-run/agent/data/stage"
	"github.com/sheaf-run/agent/drivers/driverpb"
	"github.com/sheaf-run/agent/sheaf"
)

// Root is the directory below which executions have theirs:
//
//	<run>/<partition>.<attempt>/tree      the staged inputs
//	<run>/<partition>.<attempt>/scratch   the task's own
type Root struct{ dir string }

// OpenRoot makes the directory if it is not there.
func OpenRoot(dir string) (*Root, error) {
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return nil, fmt.Errorf("make the directory of executions: %w", err)
	}
	return &Root{dir: dir}, nil
}

// AttemptName is the name that Clean asks about.
func AttemptName(partition, attempt uint32) string {
	return strconv.FormatUint(uint64(partition), 10) + "." + strconv.FormatUint(uint64(attempt), 10)
}

// Clean removes the directories of all executions but those that keep names.
func (r *Root) Clean(keep func(run sheaf.RunID, attempt string) bool) error {
	runs, err := os.ReadDir(r.dir)
	if err != nil {
		return fmt.Errorf("list the directories of executions: %w", err)
	}
	var errs []error
	for _, run := range runs {
		path := filepath.Join(r.dir, run.Name())
		attempts, err := os.ReadDir(path)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for _, a := range attempts {
			if !keep(sheaf.RunID(run.Name()), a.Name()) {
				errs = append(errs, removeAll(filepath.Join(path, a.Name())))
			}
		}
		_ = os.Remove(path) // stays where one is kept
	}
	return errors.Join(errs...)
}

// ForgetRun removes the empty directory of a run that is over.
func (r *Root) ForgetRun(run sheaf.RunID) { _ = os.Remove(filepath.Join(r.dir, string(run))) }

// Request is what an execution needs around it.
type Request struct {
	Run                sheaf.RunID
	Partition, Attempt uint32
	Store              *store.Run
	Outputs            []sheaf.Output
	Inputs             []stage.Input
	Shard              sheaf.Shard
	Whole              bool // the shard is all inputs: they are mounted as they are where that can be
	Stager             *stage.Stager
	// Gather, where it is set, makes the inputs in a directory of the space's own.
	Gather func(ctx context.Context, dir string) ([]stage.Input, error)
}

// Space is the directories of one execution.
type Space struct {
	Mounts  []*driverpb.Mount
	Outputs []output.Dir
	Scratch string // "" where none was made

	dir  string
	tree *stage.Tree // nil where nothing was staged, or by a process before this one
}

// ErrOutputs marks a Make that failed at the output directories, rather than
// at the inputs.
var ErrOutputs = errors.New("make the output directories")

// Make makes the directories. After an error nothing of them is left.
func (r *Root) Make(ctx context.Context, q Request) (*Space, error) {
	s := &Space{dir: filepath.Join(r.dir, string(q.Run), AttemptName(q.Partition, q.Attempt))}
	if err := s.make(ctx, q); err != nil {
		return nil, errors.Join(err, s.Remove())
	}
	return s, nil
}

func (s *Space) make(ctx context.Context, q Request) error {
	s.Scratch = filepath.Join(s.dir, "scratch")
	if err := os.MkdirAll(s.Scratch, 0o755); err != nil {
		return fmt.Errorf("make the scratch directory: %w", err)
	}
	if q.Gather != nil {
		var err error
		if q.Inputs, err = q.Gather(ctx, filepath.Join(s.dir, "merged")); err != nil {
			return err
		}
	}
	if len(q.Inputs) > 0 {
		var err error
		if q.Whole {
			s.tree, err = q.Stager.Whole(q.Inputs)
		}
		if !q.Whole || sheaf.ClassOf(err) == sheaf.Unsupported {
			s.tree, err = q.Stager.Stage(ctx, filepath.Join(s.dir, "tree"), q.Shard, q.Inputs)
		}
		if err != nil {
			s.tree = nil
			return err
		}
		for _, m := range s.tree.Mounts {
			s.Mounts = append(s.Mounts, &driverpb.Mount{Source: m.Host, Target: m.Target, ReadOnly: true})
		}
	}
	if len(q.Outputs) > 0 {
		names := make([]string, len(q.Outputs))
		for i, o := range q.Outputs {
			names[i] = o.Name
		}
		dirs, err := q.Store.OutputDirs(store.Key{Partition: int(q.Partition), Attempt: q.Attempt}, names)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrOutputs, err)
		}
		for i := range dirs {
			dirs[i].Target = q.Outputs[i].Path
			s.Mounts = append(s.Mounts, &driverpb.Mount{Source: dirs[i].Host, Target: dirs[i].Target})
		}
		s.Outputs = dirs
	}
	return nil
}

// Found is the space of an execution that was begun by a process before this one.
func (r *Root) Found(run sheaf.RunID, partition, attempt uint32, outputs []output.Dir) *Space {
	s := &Space{dir: filepath.Join(r.dir, string(run), AttemptName(partition, attempt)), Outputs: outputs}
	s.Scratch = filepath.Join(s.dir, "scratch")
	return s
}

// Verify checks that no input changed since the split; see stage.Tree.Verify.
func (s *Space) Verify() error {
	if s.tree == nil {
		return nil
	}
	return s.tree.Verify()
}

// Remove removes all but the output directories, which are the store's.
func (s *Space) Remove() error {
	var err error
	if s.tree != nil {
		err = s.tree.Remove()
		s.tree = nil
	}
	return errors.Join(err, removeAll(s.dir))
}

// removeAll removes a tree even where a task took the rights to its directories away.
func removeAll(dir string) error {
	err := os.RemoveAll(dir)
	if err == nil || !errors.Is(err, fs.ErrPermission) {
		return err
	}
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if d != nil && d.IsDir() {
			_ = os.Chmod(path, 0o700)
		}
		return nil
	})
	return os.RemoveAll(dir)
}

// Used is the bytes on disk below the outputs and the scratch directory; files
// that vanish meanwhile don't count. It stops counting past most.
func (s *Space) Used(most int64) int64 {
	var used int64
	count := func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // what cannot be read now is counted the next time, or never was there
		}
		info, err := d.Info()
		if err != nil {
			return nil //nolint:nilerr // it vanished
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			used += st.Blocks * 512
		} else {
			used += info.Size()
		}
		if used > most {
			return fs.SkipAll
		}
		return nil
	}
	_ = filepath.WalkDir(s.Scratch, count)
	for _, o := range s.Outputs {
		if used > most {
			break
		}
		_ = filepath.WalkDir(o.Host, count)
	}
	return used
}
