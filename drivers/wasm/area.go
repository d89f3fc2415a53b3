package wasm

import (
	"path/filepath"
	"slices"
	"strings"
)

// area is what workers may reach under Landlock. It can never widen for a
// process that has it, so it covers more than one execution needs: the directories above
// the mounts seen so far. It settles after the first few executions, when it names the
// client's staging directories, and workers are then used again and again.
type area struct {
	readOnly []string
	writable []string
}

// areaDirs bounds each list of an area. Past it the oldest is dropped, and workers are
// replaced when an execution needs it again.
const areaDirs = 16

// shared are the directories that hold too much besides a client's own to be
// given to workers as a whole.
var shared = []string{"/", "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/media", "/mnt", "/opt", "/proc", "/root", "/run", "/sbin", "/srv", "/sys", "/tmp", "/usr", "/var", "/var/lib", "/var/tmp"}

// covers reports whether every mount can be reached within the area.
func (a *area) covers(mounts []mount) bool {
	if a == nil {
		return true
	}
	for _, m := range mounts {
		dirs := a.writable
		if m.readOnly {
			dirs = slices.Concat(a.readOnly, a.writable)
		}
		if !slices.ContainsFunc(dirs, func(dir string) bool { return within(m.source, dir) }) {
			return false
		}
	}
	return true
}

// widened is the area that covers the mounts too.
func (a *area) widened(mounts []mount) *area {
	wide := &area{readOnly: slices.Clone(a.readOnly), writable: slices.Clone(a.writable)}
	for _, m := range mounts {
		if !wide.covers([]mount{m}) {
			list := &wide.writable
			if m.readOnly {
				list = &wide.readOnly
			}
			*list = widen(*list, filepath.Clean(m.source))
		}
	}
	return wide
}

// widen adds dir to the list: as a directory above it and one of the list, if
// that is not a shared one, else by itself.
func widen(list []string, dir string) []string {
	for i, have := range list {
		if above := commonDir(have, dir); !slices.Contains(shared, above) {
			list[i] = above
			return list
		}
	}
	list = append(list, dir)
	return list[max(len(list)-areaDirs, 0):]
}

func within(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}

func commonDir(a, b string) string {
	for !within(b, a) {
		a = filepath.Dir(a)
	}
	return a
}
