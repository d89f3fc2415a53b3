// Package jobspec turns a jobspec, HCL or the API's JSON, into a complete and
// checked [sheaf.Job].
//
// [Parse] is for whoever holds a file. It reports every mistake at once as
// [Diagnostics], each with its place and what to write instead. HCL is a
// language that can be made to eat memory and time, so its source is first
// measured (size, nesting, nested `for`, operators), and then evaluated in a child process:
// this same binary again, with bounds on time and memory. A main function that
// uses Parse must therefore begin with
//
//	if jobspec.IsChild(os.Args) {
//		os.Exit(jobspec.ChildMain(os.Args, os.Stdin, os.Stdout))
//	}
//
// [ParseJSON] and [Check] are for whoever holds a job from elsewhere. The rules
// are the same ones: decoders only say where a value stands, [Check] says what is wrong with it.
//
// Nothing here reads the environment, the network or files, and all functions
// may be called concurrently.
package jobspec
