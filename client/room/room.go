// Package room keeps room on the disk that a client's data lies on. Above a limit, files
// that were fetched from elsewhere go first, since they can be fetched again; then the
// servers are asked to delete runs that are over, with what they keep here. Nothing that a
// live run needs is ever touched, and nothing goes where all of it would not help: a
// disk that others have filled is theirs to clear.
package room

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sheaf-run/agent/sheaf"
)

// maxKept bounds the runs that are named at a time, the largest: some 300 KiB of names and sizes.
const maxKept = 4096

// Limits say how full the disk may be, in percent of what it has; 100 is no limit.
type Limits struct {
	Disk   int // bytes
	Inodes int
}

// Usage is how full a file system is. Free is what the client could still take.
type Usage struct {
	Bytes, FreeBytes int64
	Files, FreeFiles int64 // 0 both where it has no fixed number of inodes
}

// Measure asks the file system of a directory.
func Measure(dir string) (Usage, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return Usage{}, fmt.Errorf("measure the disk of %s: %w", dir, err)
	}
	return Usage{
		Bytes: int64(st.Blocks-st.Bfree) * st.Bsize, FreeBytes: int64(st.Bavail) * st.Bsize,
		Files: int64(st.Files - st.Ffree), FreeFiles: int64(st.Ffree),
	}, nil
}

// over is what must go so that the limits hold; 0 where they do.
func (l Limits) over(u Usage) (bytes, files int64) {
	above := func(used, free int64, percent int) int64 {
		return max(used-int64(float64(used+free)*float64(percent)/100), 0)
	}
	return above(u.Bytes, u.FreeBytes, l.Disk), above(u.Files, u.FreeFiles, l.Inodes)
}

// Kept is what a run keeps on the disk.
type Kept struct {
	Run          sheaf.RunID
	Bytes, Files int64
}

// Keeper looks after one client's disk.
type Keeper struct {
	Limits  Limits
	Every   time.Duration // between two looks
	Measure func() (Usage, error)
	// Shrink removes fetched files, and says how many bytes it has gained.
	Shrink func(bytes int64) (int64, error)
	// Sizes measures all runs that have anything here. It may take long.
	Sizes func(ctx context.Context) ([]Kept, error)
	// Ask tells the servers how much must go and what there is. Without a server to tell, or while
	// what they said before is still being deleted, it does nothing: the next look asks again.
	Ask    func(bytes, files int64, runs []Kept)
	Logger *slog.Logger

	crowded bool // as last logged
}

// Run looks again and again until ctx ends, whose error it returns.
func (k *Keeper) Run(ctx context.Context) error {
	tick := time.NewTicker(k.Every)
	defer tick.Stop()
	for {
		if err := k.look(ctx); ctx.Err() == nil && err != nil {
			k.Logger.Warn("room on the disk not looked after", "error", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// look does once what must be done now.
func (k *Keeper) look(ctx context.Context) error {
	u, err := k.Measure()
	if err != nil {
		return err
	}
	bytes, files := k.Limits.over(u)
	if bytes > 0 {
		gained, err := k.Shrink(bytes)
		if err != nil {
			return err
		}
		if gained > 0 {
			k.Logger.Info("fetched files are removed: the disk is fuller than it may be", "bytes", gained)
		}
		bytes = max(bytes-gained, 0)
	}
	if bytes == 0 && files == 0 {
		k.crowded = false
		return nil
	}
	runs, err := k.Sizes(ctx)
	if err != nil {
		return err
	}
	slices.SortFunc(runs, func(a, b Kept) int { return cmp.Compare(b.Bytes, a.Bytes) })
	runs = runs[:min(len(runs), maxKept)]
	var all Kept
	for _, r := range runs {
		all.Bytes, all.Files = all.Bytes+r.Bytes, all.Files+r.Files
	}
	if all.Bytes < bytes {
		bytes = 0
	}
	if all.Files < files {
		files = 0
	}
	helps := bytes > 0 || files > 0
	if !k.crowded {
		k.crowded = true
		k.Logger.Warn("the disk is fuller than it may be", "used", u.Bytes, "free", u.FreeBytes, "files", u.Files, "of runs", all.Bytes, "runs that are over are deleted", helps)
	}
	if helps {
		k.Ask(bytes, files, runs)
	}
	return nil
}
