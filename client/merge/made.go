package merge

import (
	"context"
	"fmt"
	"slices"

	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/sheaf"
)

// made remembers, in ranges, which outputs of the run that is merged other runs have made, and
// the tokens for reading them.
type made struct {
	ranges []madeRange // ascending
	tokens map[sheaf.RunID]*tokens
}

type madeRange struct {
	first, count, as int
	run              sheaf.RunID
}

// add notes a partition, which is behind those that are there.
func (d *made) add(partition, as int, run sheaf.RunID) {
	if n := len(d.ranges) - 1; n >= 0 {
		if x := &d.ranges[n]; x.run == run && x.first+x.count == partition && x.as+x.count == as {
			x.count++
			return
		}
	}
	d.ranges = append(d.ranges, madeRange{partition, 1, as, run})
	if d.tokens == nil {
		d.tokens = map[sheaf.RunID]*tokens{}
	}
	if d.tokens[run] == nil {
		d.tokens[run] = &tokens{}
	}
}

// by is the run that made a partition's output, and as which; own is the run that is merged.
func (d *made) by(own sheaf.RunID, partition int) (sheaf.RunID, int) {
	i, ok := slices.BinarySearchFunc(d.ranges, partition, func(x madeRange, p int) int {
		switch {
		case x.first+x.count <= p:
			return -1
		case x.first > p:
			return 1
		}
		return 0
	})
	if !ok {
		return own, partition
	}
	return d.ranges[i].run, d.ranges[i].as + partition - d.ranges[i].first
}

// token is a data token for the output of a partition, which that run has made.
func (m *Merge) token(ctx context.Context, run sheaf.RunID, partition int) ([]byte, error) {
	if run == m.Run {
		return m.tokens.get(ctx, m.ask)
	}
	return m.made.tokens[run].get(ctx, func(ctx context.Context) (*wire.Outputs, error) {
		outs, err := m.askFrom(ctx, partition, true)
		if err != nil {
			return nil, err
		}
		at := slices.Index(outs.GetRuns(), string(run))
		if at < 0 || at >= len(outs.GetTokens()) {
			return nil, fmt.Errorf("the servers name no run %s as the maker of partition %d", run, partition)
		}
		return &wire.Outputs{Token: outs.Tokens[at]}, nil
	})
}
