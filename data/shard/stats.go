package shard

// Stats is what a split came to.
type Stats struct {
	Partitions int
	Atoms      int64
	Bytes      int64
	Smallest   int64    // bytes of the smallest shard
	Largest    int64    // bytes of the largest shard
	Listed     int64    // files and directories looked at
	Warnings   []string // each a sentence; at most one of a kind, with a count and an example
}
