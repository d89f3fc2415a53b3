// Package output turns what an attempt wrote into its output manifest: the
// list of its files with size, digest and mode, in one order and one encoding,
// so that equal outputs have equal manifests and one digest commits to all bytes.
//
// The packages below keep, merge and deliver what was harvested: store (the
// client's durable records, logs and output files), merge (the manifests of all
// partitions into one), result (the folder that a person gets).
package output
