package shard

import "math"

// A stable batch ends behind an atom whose path says so, whatever stands around it: an atom
// that comes or goes changes its own batch, and at most one beside it. The price is that
// sizes vary, as the gaps between random marks do.

// stableMost is how many times its average a stable batch may be long: one batch in three
// thousand would be longer, and with a cut every so often none is a straggler.
const stableMost = 8

// endsBatch reports whether a datum of this hash is the last of its batch, which
// one datum in average is.
func endsBatch(hash uint64, average int) bool { return hash <= math.MaxUint64/uint64(average) }

// pathHash is FNV-1a over a path, continued from another, with Murmur3's finish so that
// all bits count. Cuts of runs to come depend on it: it never changes.
func pathHash(seed uint64, path string) uint64 {
	h := seed ^ 14695981039346656037
	for i := range len(path) {
		h = (h ^ uint64(path[i])) * 1099511628211
	}
	h = (h ^ h>>33) * 0xff51afd7ed558ccd
	h = (h ^ h>>33) * 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}
