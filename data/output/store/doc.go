// Package store is the client's durable store: for each run a record of every
// attempt that ended here, the logs of all of them, and their output files.
//
// On disk, below the store's directory:
//
//	LOCK                              held by the one process that uses the store
//	runs/<run>/seg-00000001 …         records, appended; never rewritten but for the byte that marks an answer
//	runs/<run>/index                  16 bytes a partition: its latest record; earlier ones are chained from it
//	runs/<run>/mark                   up to where the index is known to be whole
//	runs/<run>/log/<partition>.<attempt>.{out,err}   logs too large for a record, and those of running executions
//	runs/<run>/out/<partition>.<attempt>/<output>/…  output files
//	runs/<run>/merged/<attempt>       merged manifests made here
//	trash/                            what is being deleted
//
// Durability: what [Run.Append] took is on disk when a later [Store.Sync] has
// returned nil, with its output files and logs, and not before; one sync serves
// the whole batch. A write that fails for lack of room leaves the batch pending: call
// Sync again. A sync that fails ends the store (see [ErrBroken]).
// Memory does not grow with the number of records.
//
// Every byte of a record and of the index is checked when it is read; a byte
// that was changed is reported as [*Damage], which names the file and the offset.
// A tail that a crash left half written is cut.
//
// All methods may be called concurrently.
package store
