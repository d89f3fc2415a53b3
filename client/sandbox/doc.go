// Package sandbox is what one execution finds around it: the directories on
// this host that are mounted for it, its environment and its config with the
// run-time references filled in.
//
// A [Task] is compiled once for a run and is then cheap for each execution; its
// methods may be called concurrently. [Root] owns the directories of executions
// below one directory of the client; whatever a process before this one left
// there is removed at the start, except what belongs to executions that go on. Output
// directories are the store's, not this package's.
package sandbox
