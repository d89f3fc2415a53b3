package sheaf

// Split is the rule that makes partitions of the files of the inputs.
// BatchSize 0 is unlimited: the default is filled in before (1, or unlimited where
// MaxBytes or GroupBy is set).
type Split struct {
	BasePath   string `json:"base_path,omitempty"` // absolute, clean; "" is the default of the language
	Glob       string `json:"glob,omitempty"`
	Match      string `json:"match,omitempty"` // MatchAny, MatchFiles, MatchDirs, or "" for the glob's own rule
	BatchSize  int    `json:"batch_size,omitempty"`
	MaxBytes   Size   `json:"max_bytes,omitempty"`
	Partitions int    `json:"partitions,omitempty"`
	Stable     bool   `json:"stable,omitempty"`
	GroupBy    string `json:"group_by,omitempty"` // RE2
	GroupRest  string `json:"group_rest,omitempty"`
	AllowEmpty bool   `json:"allow_empty,omitempty"`

	Combine *Combine `json:"combine,omitempty"` // instead of Glob and BasePath
}

// Values of Split.Match and Split.GroupRest.
const (
	MatchAny   = "any"
	MatchFiles = "files"
	MatchDirs  = "dirs"

	GroupRestError = "error"
	GroupRestKeep  = "keep"
	GroupRestDrop  = "drop"
)

// Combine joins several inputs into tuples. Kind is "cross", "union", "join",
// "group", or "over" for a leaf, which alone has Over.
type Combine struct {
	Kind string    `json:"kind"`
	Of   []Combine `json:"of,omitempty"`
	Over *Over     `json:"over,omitempty"`
}

// Over is one input's part in a combination.
type Over struct {
	Input string `json:"input"`
	Glob  string `json:"glob,omitempty"` // anchored at the input's mount
	Match string `json:"match,omitempty"`
	Key   string `json:"key,omitempty"` // RE2, for join and group
	Outer bool   `json:"outer,omitempty"`
}
