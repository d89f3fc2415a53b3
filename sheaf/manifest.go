package sheaf

// Atom is a file or directory that goes to one place.
type Atom struct {
	Path     string // bytes, absolute in the tree, "/"-separated
	Input    string // the input's name
	Size     int64  // bytes; of a directory, the sum below it
	Dir      bool
	Identity string // what the source can promise of the content: "sha256:…", "etag:…", or "stat:<size>:<mtime ns>"
}

// Datum is what one line of the shard file holds: with one input an atom, with
// several a tuple.
type Datum struct {
	Key   string // of its group, "" without groups
	Atoms []Atom
}

// Shard is the ordered list of data that one partition reads.
type Shard struct {
	Index int
	Key   string // of its group
	Data  []Datum
}

// Atoms are the shard's atoms, each once, in the order in which they first
// stand there: several data may hold the same.
func (s Shard) Atoms() []*Atom {
	atoms := make([]*Atom, 0, len(s.Data))
	var seen map[string]struct{} // once they are not ascending, and so might repeat
	for i := range s.Data {
		for j := range s.Data[i].Atoms {
			a := &s.Data[i].Atoms[j]
			if n := len(atoms); seen == nil && n > 0 && a.Path <= atoms[n-1].Path {
				seen = make(map[string]struct{}, n)
				for _, b := range atoms {
					seen[b.Path] = struct{}{}
				}
			}
			if seen != nil {
				if _, has := seen[a.Path]; has {
					continue
				}
				seen[a.Path] = struct{}{}
			}
			atoms = append(atoms, a)
		}
	}
	return atoms
}

// Bytes is the sum of the sizes of the shard's atoms, each counted once.
func (s Shard) Bytes() int64 {
	var n int64
	for _, a := range s.Atoms() {
		n += a.Size
	}
	return n
}

// File is one file of an output manifest.
type File struct {
	Output string `json:"output"` // the output's name; "" for stdout and stderr of the run
	Path   string `json:"path"`   // relative to the output; bytes
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"` // hex
	Mode   uint32 `json:"mode"`   // permission bits
	Link   string `json:"link,omitempty"`
	Parts  []Part `json:"parts,omitempty"` // where the bytes lie, in order; in a merged manifest only
}

// Part is a piece of a merged file: the whole of one file of one partition.
type Part struct {
	Partition int    `json:"partition"`
	Attempt   uint32 `json:"attempt"`
	Node      NodeID `json:"node,omitempty"`
	Path      string `json:"path,omitempty"` // in the partition's output, where it differs from the file's
	Size      int64  `json:"size"`
	SHA256    string `json:"sha256"`
}
