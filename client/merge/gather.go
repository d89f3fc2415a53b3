package merge

import (
	"bufio"
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"os"

	"github.com/sheaf-run/agent/data/output/merge"
	"github.com/sheaf-run/agent/data/output/result"
	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/sheaf"
)

// Gather writes the merged outputs of the partitions to directories below dir, as a person has them who takes the
// result: dir/outputs/<name>. Every file is verified against its digest.
func (m *Merge) Gather(ctx context.Context, dir string) error {
	spool, err := os.CreateTemp(m.Dir, "gather-*")
	if err != nil {
		return fmt.Errorf("spool the merged manifest: %w", err)
	}
	defer func() { _ = spool.Close() }() // it is read back before, and gone with it
	if err := os.Remove(spool.Name()); err != nil {
		return fmt.Errorf("spool the merged manifest: %w", err)
	}
	buf := bufio.NewWriterSize(spool, 256<<10)
	sum, err := merge.Merge(ctx, m.Job.Outputs, m.partitions(ctx), buf, merge.Options{Dir: m.Dir})
	if err == nil {
		err = buf.Flush()
	}
	if err != nil {
		return err
	}
	if _, err := spool.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("read the merged manifest: %w", err)
	}
	_, err = result.Write(ctx, dir, result.Source{
		Run: m.Run, Manifest: spool, SHA256: hex.EncodeToString(sum.SHA256[:]),
		Fetch: func(ctx context.Context, f sheaf.File, p sheaf.Part, offset int64) (io.ReadCloser, error) {
			return m.openAt(ctx, &f, p, offset)
		},
	})
	return err
}

// request asks for the outputs from a partition on, as the attempt that this is.
func (m *Merge) request(from uint32) *wire.ReadOutputsRequest {
	req := &wire.ReadOutputsRequest{Run: string(m.Run), Generation: m.Generation, From: from, Node: string(m.Node)}
	if m.Reduce {
		req.ReduceAttempt = m.Attempt
	} else {
		req.MergeAttempt = m.Attempt
	}
	return req
}
