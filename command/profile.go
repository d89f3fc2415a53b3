package command

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/pprof"

	"github.com/spf13/pflag"
)

// profileFlag adds the flag for a profile of the agent's own process. It is
// hidden: the benchmarks use it, and nothing of it can be reached over HTTP.
func profileFlag(flags *pflag.FlagSet, file *string) {
	flags.StringVar(file, "cpu-profile", "", "write a CPU profile of the whole life to this file")
	_ = flags.MarkHidden("cpu-profile") // fails only for a flag that is not there
}

// profiled runs do, under a CPU profile unless file is empty.
func profiled(ctx context.Context, file string, do func(context.Context) error) error {
	if file == "" {
		return do(ctx)
	}
	f, err := os.Create(file)
	if err != nil {
		return fmt.Errorf("write a CPU profile: %w", err)
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return errors.Join(fmt.Errorf("write a CPU profile: %w", err), f.Close())
	}
	err = do(ctx)
	pprof.StopCPUProfile()
	return errors.Join(err, f.Close())
}
