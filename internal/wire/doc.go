// Package wire is how agents talk to each other: the gRPC services and messages between
// servers and clients, the settings both ends of a connection share, and the mux
// that lets raft and gRPC live on one port. It decides nothing.
package wire
