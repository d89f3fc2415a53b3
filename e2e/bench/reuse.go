package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/sheaf-run/agent/api"
	"github.com/sheaf-run/agent/sheaf"
)

// reuseTarget is how much longer an unchanged run may take than a listing.
const reuseTarget = 2

// reuseRuns is how often the unchanged run is measured; what counts is the median.
const reuseRuns = 3

const (
	// reusedObjects and reusedSingly are fewer than a million: each is fetched in the first run, and each partition of its own costs
	// that run milliseconds.
	reusedObjects = 100_000
	reusedSingly  = 10_000
)

// reuse measures a run over files that were all processed before, beside listing them.
func (b *bench) reuse(ctx context.Context) error {
	disk, err := b.onDisk(ctx)
	if err != nil {
		return err
	}
	objects, close100 := inBucket(b.scaled(reusedObjects))
	defer close100()
	few, close1 := inBucket(b.scaled(reusedSingly))
	defer close1()
	for _, c := range []struct {
		key   string
		in    *input
		batch int
	}{{"P9", disk, 100}, {"P9.bucket", objects, 100}, {"P9.single", few, 1}} {
		if err := b.unchanged(ctx, c.key, c.in, c.batch); err != nil {
			return fmt.Errorf("%s: %w", c.in.what, err)
		}
	}
	return nil
}

func (b *bench) unchanged(ctx context.Context, key string, in *input, batch int) error {
	server, client, err := b.apart(ctx, in.client)
	if err != nil {
		return err
	}
	defer server.stop()
	defer client.stop()
	job, err := server.reading(ctx, in, batch)
	if err != nil {
		return err
	}
	n := in.files
	want := (n + batch - 1) / batch
	whole := func(s sheaf.RunSummary, p sheaf.PartitionCounts) error {
		if s.Status != sheaf.RunSucceeded || s.Partitions.Total != want || s.Partitions.Succeeded != p.Succeeded || s.Partitions.Reused != p.Reused {
			return fmt.Errorf("run %s is %s with %+v of %d partitions: %s", s.ID, s.Status, s.Partitions, want, s.Error)
		}
		return nil
	}
	first, s, _, err := server.over(ctx, job)
	if err == nil {
		err = whole(s, sheaf.PartitionCounts{Succeeded: want})
	}
	if err != nil {
		return err
	}
	b.note("%s, %d a partition: the first run took %.1f s", in.what, batch, first.Seconds())
	var took, alone, sealed []float64
	for range reuseRuns {
		d, err := in.list(ctx)
		if err != nil {
			return err
		}
		alone = append(alone, d.Seconds())
		d, s, split, err := server.over(ctx, job)
		if err == nil {
			err = whole(s, sheaf.PartitionCounts{Reused: want})
		}
		if err != nil {
			return err
		}
		took, sealed = append(took, d.Seconds()), append(sealed, split.Seconds())
	}
	for _, s := range [][]float64{took, alone, sealed} {
		slices.Sort(s)
	}
	limit := quantile(alone, 0.5)
	b.add(Figure{
		Key: key, What: fmt.Sprintf("an unchanged run with reuse, %s, %d a partition", in.what, batch), Value: quantile(took, 0.5), Unit: "s",
		Target: reuseTarget * limit, AtMost: true, Limit: limit, LimitWhat: "listing alone",
		Detail: fmt.Sprintf("%s, %s; split and sealed after %.1f s", amount(float64(n), "files"), amount(float64(want), "partitions"), quantile(sealed, 0.5)),
	})
	return nil
}

// over submits a run, waits for its end and tells how long it took in all and until it was split.
func (p *process) over(ctx context.Context, job sheaf.Job) (took time.Duration, s sheaf.RunSummary, sealed time.Duration, err error) {
	began := time.Now()
	reply, err := p.api.Submit(ctx, api.SubmitRequest{Job: job})
	if err != nil {
		return 0, s, 0, fmt.Errorf("submit: %w", err)
	}
	id, index := string(reply.Run.ID), reply.Index
	for {
		var m api.Meta
		s, m, err = p.api.Summary(ctx, id, api.Read{Index: index, Wait: blockFor})
		if err != nil {
			return 0, s, 0, fmt.Errorf("watch run %s: %w; the agent's log:\n%s", id, err, p.tail())
		}
		if sealed == 0 && s.Partitions.Total > 0 {
			sealed = time.Since(began)
		}
		if s.Status.Terminal() {
			return time.Since(began), s, sealed, nil
		}
		index = m.Index
		select {
		case <-time.After(watchPause):
		case <-ctx.Done():
			return 0, s, 0, context.Cause(ctx)
		}
	}
}
