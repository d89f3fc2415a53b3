package fleet

import (
	"context"
	"fmt"
	"log/slog"
	"os"

	"golang.org/x/sync/errgroup"

	"github.com/sheaf-run/agent/data/output/store"
	"github.com/sheaf-run/agent/internal/gossip"
)

// Config is a process's share of the fleet.
type Config struct {
	First, Count int // numbers of its members
	Gossiping    int // how many of them take part in gossip
	Servers      []string
	Join         []string // gossip addresses
	Work         Work
	Dir          string // for merges
}

// levelFatal is above all that is logged: a member that cannot go on ends Run with an error, and gossip
// calls it an error when its peers leave before it.
const levelFatal = slog.LevelError + 4

// Run has the members take part until ctx ends. It calls ready once each has had its first welcome.
func Run(ctx context.Context, c Config, ready func()) error {
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: levelFatal}))
	g, ctx := errgroup.WithContext(ctx)
	var members []*member
	for i := range c.Count {
		m := newMember(c.First+i, c.Work, c.Servers, c.Dir, log)
		members = append(members, m)
		g.Go(func() error { return m.run(ctx) })
		if i >= c.Gossiping {
			continue
		}
		pool, err := gossip.New(gossip.Config{
			Self: gossip.Member{Name: string(m.id), Region: "global", Address: "127.0.0.1:1", Node: m.id},
			Bind: "127.0.0.1:0", Join: c.Join, Logger: log,
		})
		if err != nil {
			return fmt.Errorf("gossip of %s: %w", m.id, err)
		}
		g.Go(func() error { return pool.Run(ctx) })
	}
	g.Go(func() error {
		for _, m := range members {
			select {
			case <-m.welcomed:
			case <-ctx.Done():
				return nil
			}
		}
		ready()
		return nil
	})
	return g.Wait()
}

// mergeStore is where a merge keeps its manifest; it goes with it.
type mergeStore struct {
	*store.Store
	dir string
}

func openStore(dir string) (*mergeStore, error) {
	own, err := os.MkdirTemp(dir, "merge-")
	if err != nil {
		return nil, fmt.Errorf("make a directory for a merge: %w", err)
	}
	s, err := store.Open(own, store.Options{})
	if err != nil {
		return nil, fmt.Errorf("keep what is merged: %w", err)
	}
	return &mergeStore{s, own}, nil
}

func (s *mergeStore) close() {
	_ = s.Close() // nothing of it is wanted
	_ = os.RemoveAll(s.dir)
}
