package client

import (
	"context"

	"github.com/sheaf-run/agent/client/room"
	"github.com/sheaf-run/agent/client/worker"
	"github.com/sheaf-run/agent/data/cache"
	"github.com/sheaf-run/agent/data/output/store"
	"github.com/sheaf-run/agent/internal/wire"
)

// room looks after the disk of the data directory. kept is nil without a cache.
func (c *Client) room(st *store.Store, kept *cache.Cache, w *worker.Worker) *room.Keeper {
	k := &room.Keeper{
		Limits: c.cfg.Room, Every: c.cfg.LookEvery, Logger: c.cfg.Logger,
		Measure: func() (room.Usage, error) { return room.Measure(c.dir) },
		Shrink:  func(int64) (int64, error) { return 0, nil },
		Sizes:   func(ctx context.Context) ([]room.Kept, error) { return sizes(ctx, st) },
		Ask: func(bytes, files int64, runs []room.Kept) {
			m := &wire.Crowded{Bytes: uint64(bytes), Files: uint64(files)}
			for _, r := range runs {
				m.Runs = append(m.Runs, &wire.Kept{Run: string(r.Run), Bytes: uint64(r.Bytes), Files: uint64(r.Files)})
			}
			w.Crowded(m)
		},
	}
	if kept != nil {
		k.Shrink = kept.Shrink
	}
	return k
}

// sizes measures all runs of the store.
func sizes(ctx context.Context, st *store.Store) ([]room.Kept, error) {
	ids, err := st.Runs()
	if err != nil {
		return nil, err
	}
	var list []room.Kept
	for _, id := range ids {
		bytes, files, err := st.Size(ctx, id)
		if err != nil {
			return nil, err
		}
		list = append(list, room.Kept{Run: id, Bytes: bytes, Files: files})
	}
	return list, nil
}
