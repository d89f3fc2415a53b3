// Package shard makes shards of a listing by a job's rule, and writes them
// down compactly. It is pure: listings come in as values, shards go out.
//
// [Compile] checks a job's split and gives its [Rule]. A [Splitter] takes the
// entries of the tree in bytewise order and hands out shards in order; the same entries
// give the same shards. Memory is bounded by the largest shard, except where
// the rule must see all atoms first (group_by, partitions = N), which are then held front-coded.
//
// [Writer] turns shards into chunks of at most [MaxChunk] bytes, each of which
// is read by itself; [Decode] reads them and is safe on any bytes. A Rule is
// safe for concurrent use, the others are not.
package shard
