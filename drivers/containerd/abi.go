package containerd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"slices"

	"github.com/containerd/containerd/mount"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// loaders are of programs for the 32-bit machines that 64-bit ones can be: where an image has one, it
// has such programs.
var loaders = []string{
	"lib/ld-linux.so.2", "lib/ld-musl-i386.so.1",
	"lib/ld-linux-armhf.so.3", "lib/ld-linux.so.3", "lib/ld-musl-armhf.so.1",
}

// narrow leaves to an image's programs the system calls of this machine alone, unless they are of another. A
// filter for the others too is three times as much to make, for each container: a
// quarter of all that the making of one takes.
func narrow(filter *specs.LinuxSeccomp, others bool) {
	if filter != nil && !others && len(filter.Architectures) > 0 {
		filter.Architectures = filter.Architectures[:1]
	}
}

// forOthers reports whether an image has programs for another machine than this, by what it says it is and by the files
// that it is mounted with.
func forOthers(ctx context.Context, architecture string, files []mount.Mount) (bool, error) {
	if architecture != runtime.GOARCH {
		return true, nil
	}
	found := false
	if err := mount.WithTempMount(ctx, files, func(dir string) error {
		root, err := os.OpenRoot(dir)
		if err != nil {
			return err
		}
		defer root.Close()
		found = hasLoader(root)
		return nil
	}); err != nil {
		return false, fmt.Errorf("look at its files: %w", err)
	}
	return found, nil
}

// hasLoader reports whether one of the loaders is there, or may be: links that lead
// out of the image are not followed.
func hasLoader(root *os.Root) bool {
	return slices.ContainsFunc(loaders, func(path string) bool {
		_, err := root.Lstat(path)
		return !errors.Is(err, fs.ErrNotExist)
	})
}
