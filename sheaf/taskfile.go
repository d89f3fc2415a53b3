package sheaf

import (
	"slices"
	"strings"
)

// TaskFile is a file that a task's driver needs, a module or the archive of an image, and that its node fetches.
type TaskFile struct {
	Argument string // of the task's config
	Prefix   string // of the argument's value, before the URL: oci-archive: or docker-archive:
	URL      string // of a source that is this one file
}

// fetched are the schemes from which nodes fetch such files. A path, or file://, is the driver's to open.
var fetched = []string{"s3", "https", "ipfs", "car"}

// ImageArchives are what the value of image begins with where it is an archive and not a reference.
var ImageArchives = []string{"oci-archive:", "docker-archive:"}

// CutArchive takes an image's value apart that names an archive.
func CutArchive(image string) (prefix, location string, ok bool) {
	for _, prefix := range ImageArchives {
		if location, ok := strings.CutPrefix(image, prefix); ok {
			return prefix, location, true
		}
	}
	return "", "", false
}

// TaskFiles are a task's. A value that differs between partitions is none.
func TaskFiles(t *Task) []TaskFile {
	var files []TaskFile
	for _, f := range []TaskFile{{Argument: "module"}, {Argument: "image"}} {
		value, ok := t.Config[f.Argument].(string)
		if !ok {
			continue
		}
		value, err := Expand(value, func(string) (string, bool) { return "", false })
		if err != nil {
			continue
		}
		f.URL = value
		if f.Argument == "image" {
			if f.Prefix, f.URL, ok = CutArchive(value); !ok {
				continue
			}
		}
		if scheme, _, ok := strings.Cut(f.URL, "://"); ok && slices.Contains(fetched, scheme) {
			files = append(files, f)
		}
	}
	return files
}
