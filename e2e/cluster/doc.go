// Package cluster holds the tests that try a whole cluster from outside: servers and clients are
// processes in network namespaces of their own, with a bridge between them, and
// are killed, frozen and cut off while they work. What a ledger job made is then compared with what it had to
// make. A campaign in which a fault did not happen, or less was done than it asks for, has failed.
//
// The short form is part of `make test` and asserts no times; the long one (`make cluster-test`, the flag
// -long) holds what it measures against docs/guarantees.md.
package cluster
