package jobspec

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"runtime/debug"
	"time"

	"github.com/sheaf-run/agent/sheaf"
)

// ChildArg is the first argument that makes this executable the evaluating child.
const ChildArg = "jobspec-eval"

// Bounds of the child. A real jobspec takes milliseconds and a few megabytes.
const (
	childTime   = 5 * time.Second // of CPU
	childHeap   = 192 << 20       // what Go's collector is told to stay below
	childData   = 512 << 20       // where the kernel refuses more
	childStack  = 64 << 20        // recursion ends here, instead of at Go's 1 GB
	childAnswer = 4 * MaxJob      // of the answer; a larger one is no job
	childInput  = 4 * MaxSource   // of the request: source, variables and schemas
)

// request is what a child reads.
type request struct {
	Source  Source
	Options Options
}

// answer is what a child writes.
type answer struct {
	Job         *sheaf.Job
	Warnings    Warnings
	Diagnostics Diagnostics
	Fault       string // of ours: what Eval panicked with
}

// IsChild reports whether a process with these arguments (os.Args) is to be
// the evaluating child.
func IsChild(args []string) bool { return len(args) > 1 && args[1] == ChildArg }

// ChildMain evaluates the request on in, writes the answer to out, and gives the
// exit code. It bounds the memory and CPU time of this process for good.
func ChildMain(_ []string, in io.Reader, out io.Writer) int {
	debug.SetMaxStack(childStack)
	debug.SetMemoryLimit(childHeap)
	if err := limitProcess(); err != nil {
		_ = json.NewEncoder(out).Encode(answer{Fault: err.Error()})
		return 0
	}
	var req request
	if err := json.NewDecoder(in).Decode(&req); err != nil {
		return 1
	}
	if json.NewEncoder(out).Encode(answerTo(req)) != nil {
		return 1
	}
	return 0
}

// answerTo evaluates a request. A panic is a fault of ours, and named as one.
func answerTo(req request) (a answer) {
	defer func() {
		if x := recover(); x != nil {
			a = answer{Fault: fmt.Sprint(x)}
		}
	}()
	job, warnings, err := Eval(req.Source, req.Options)
	if err == nil {
		return answer{Job: job, Warnings: warnings}
	}
	if !errors.As(err, &a.Diagnostics) {
		a.Fault = err.Error()
	}
	return a
}

// runChild evaluates in a child. A child that ends without an answer was
// stopped by one of its bounds: a fault of the source, whatever it says.
func runChild(ctx context.Context, src Source, opts Options) (*sheaf.Job, Warnings, error) {
	argv, err := opts.childCommand()
	if err != nil {
		return nil, nil, fmt.Errorf("find this executable: %w", err)
	}
	opts.Exec = nil
	body, err := json.Marshal(request{src, opts})
	if err != nil {
		return nil, nil, fmt.Errorf("encode the jobspec: %w", err)
	}
	if len(body) > 2*childInput {
		return nil, nil, Diagnostics{tooMuch(src, "source, variables and schemas together are too large", fmt.Sprint(childInput))}
	}

	timed, cancel := context.WithTimeout(ctx, childPatience)
	defer cancel()
	cmd := exec.CommandContext(timed, argv[0], argv[1:]...)
	cmd.Env = []string{"GOTRACEBACK=none"}
	cmd.Dir = "/"
	cmd.Stdin = bytes.NewReader(body)
	stdout := &bounded{max: childAnswer}
	cmd.Stdout = stdout
	cmd.WaitDelay = time.Second
	err = cmd.Run()

	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return nil, nil, fmt.Errorf("evaluate %s: %w", src.Name, context.Cause(ctx))
	case timed.Err() != nil, errors.As(err, &exit) && cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime() >= childTime:
		return nil, nil, Diagnostics{tooMuch(src, "evaluating the jobspec takes too long", childTime.String())}
	case stdout.full:
		return nil, nil, Diagnostics{tooMuch(src, "the jobspec makes a job that is too large", fmt.Sprintf("%d bytes", MaxJob))}
	case errors.As(err, &exit):
		return nil, nil, Diagnostics{tooMuch(src, "evaluating the jobspec takes too much memory or recursion", fmt.Sprintf("%d MiB", childData>>20))}
	case err != nil:
		return nil, nil, fmt.Errorf("start the process that evaluates jobspecs: %w", err)
	}
	var a answer
	if err := json.Unmarshal(stdout.buf.Bytes(), &a); err != nil {
		return nil, nil, fmt.Errorf("read the answer of the process that evaluates jobspecs: %w", err)
	}
	if a.Fault != "" {
		return nil, nil, fmt.Errorf("evaluate %s: %s", src.Name, a.Fault)
	}
	if len(a.Diagnostics) > 0 {
		return nil, nil, a.Diagnostics
	}
	if a.Job == nil {
		return nil, nil, errors.New("the process that evaluates jobspecs gave no answer")
	}
	return a.Job, a.Warnings, nil
}

func tooMuch(src Source, msg, limit string) Diagnostic {
	return Diagnostic{File: src.Name, Problem: &sheaf.Error{Class: sheaf.Invalid, Msg: msg, Limit: limit,
		Hint: "look for for-expressions and functions that multiply lists or text, and write out what they make"}}
}

// errTooLong is what [bounded] refuses a write with.
var errTooLong = errors.New("answer is too long")

// bounded is a buffer that takes at most max bytes. It does not embed the
// buffer: io.Copy would find its ReadFrom and pass Write by.
type bounded struct {
	buf  bytes.Buffer
	max  int
	full bool
}

func (b *bounded) Write(p []byte) (int, error) {
	if b.buf.Len()+len(p) > b.max {
		b.full = true
		return 0, errTooLong
	}
	return b.buf.Write(p)
}
