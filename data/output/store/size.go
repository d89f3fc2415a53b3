package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"syscall"

	"github.com/sheaf-run/agent/sheaf"
)

// diskBlock is the unit in which stat counts what a file takes, on every file system.
const diskBlock = 512

// Size measures what is kept of a run: the bytes that it takes on the disk, and the
// files and directories. It walks all of them. What goes meanwhile is passed over; of a run that
// is not here both are 0.
func (s *Store) Size(ctx context.Context, id sheaf.RunID) (bytes, files int64, err error) {
	err = filepath.WalkDir(filepath.Join(s.path("runs"), string(id)), func(_ string, d fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		var info fs.FileInfo
		if err == nil {
			info, err = d.Info()
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		files++
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			bytes += st.Blocks * diskBlock
		}
		return nil
	})
	if err != nil {
		return 0, 0, fmt.Errorf("measure run %s: %w", id, err)
	}
	return bytes, files, nil
}
