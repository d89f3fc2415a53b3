package sheaf

import (
	"encoding/json"
	"fmt"
	"unicode/utf8"
)

// OutputConflict is two partitions whose outputs cannot be merged as the job says.
type OutputConflict struct {
	Output     string `json:"output"`
	Path       string `json:"path"`                // relative to the output; bytes
	Partitions [2]int `json:"partitions"`          // ascending
	Directory  bool   `json:"directory,omitempty"` // the path is a file in one of them and a directory in the other
	Message    string `json:"message,omitempty"`   // the same in words, with what to do
}

// maxShownPath is how much of a path a message shows, in bytes: the file system's own limit of a name still
// tells which it is.
const maxShownPath = 200

// Text says what is in conflict, as the merge says it.
func (c OutputConflict) Text() string {
	path := c.Path
	if len(path) > maxShownPath {
		path = path[:maxShownPath] + "…"
	}
	how := "was written by both"
	if c.Directory {
		how = "is a file in one and a directory in the other of"
	}
	return fmt.Sprintf("output %q: %q %s partitions %d and %d", c.Output, path, how, c.Partitions[0], c.Partitions[1])
}

// Hint is what to do about it in the job; merge is how the output is merged.
func (c OutputConflict) Hint(merge string) string {
	if merge == MergeConcat {
		return `write the same kind of file in every partition, or set merge to "none"`
	}
	return `write to names that hold ${partition.index}, or set on_conflict to "rename" or "last", or merge to "none"`
}

// MarshalJSON writes a path that is not UTF-8 in base64 under "path_b64", as files do.
func (c OutputConflict) MarshalJSON() ([]byte, error) {
	type plain OutputConflict
	v := struct {
		plain
		Path    *string `json:"path,omitempty"`
		PathB64 []byte  `json:"path_b64,omitempty"`
	}{plain: plain(c)}
	if utf8.ValidString(c.Path) {
		v.Path = &c.Path
	} else {
		v.PathB64 = []byte(c.Path)
	}
	return json.Marshal(v)
}

// UnmarshalJSON reads what MarshalJSON writes.
func (c *OutputConflict) UnmarshalJSON(b []byte) error {
	type plain OutputConflict
	var v struct {
		plain
		PathB64 []byte `json:"path_b64"`
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return err
	}
	*c = OutputConflict(v.plain)
	c.Path = nameOf(c.Path, v.PathB64)
	return nil
}

// MergeOf is how the output of that name is merged.
func (j *Job) MergeOf(output string) string {
	for _, o := range j.Outputs {
		if o.Name == output && o.Merge != "" {
			return o.Merge
		}
	}
	return MergeUnion
}
