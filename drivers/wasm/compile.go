package wasm

import (
	"context"
	"fmt"
)

// compile compiles a module into its cache, in a worker of its own that
// hostile code may bring down, and gives the memory that it begins with.
func (s *spawner) compile(ctx context.Context, ref moduleRef) (minMemory uint64, err error) {
	boot := setup{compiler: true, confine: canConfine(), writable: []string{ref.dir}}
	c, err := s.spawn(boot)
	if err != nil {
		return 0, err
	}
	bounded, cancel := context.WithTimeout(ctx, compileTimeout)
	defer cancel()
	defer c.end()
	defer context.AfterFunc(bounded, c.kill)()
	var l loaded
	if err = c.awaitReady(); err == nil {
		l, err = c.load(ref)
	}
	switch {
	case ctx.Err() != nil:
		return 0, fmt.Errorf("compile the module: %w", ctx.Err())
	case bounded.Err() != nil:
		f := invalidModule("compiling the module takes too long")
		f.limit, f.hint = compileTimeout.String(), "make the module smaller"
		return 0, f.err()
	case err != nil:
		c.end()
		death := c.death()
		f := invalidModule("the module brought its compiler down: %s", death.message)
		if death.outOfMem {
			f = invalidModule("compiling the module takes too much memory")
			f.limit, f.hint = fmt.Sprintf("%d MiB", compilerData>>20), "make the module smaller"
		}
		return 0, f.err()
	}
	if l.fault != nil {
		return 0, l.fault.err()
	}
	return l.minMemory, nil
}
