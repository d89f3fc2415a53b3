package leader

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/server/conflict"
	"github.com/sheaf-run/agent/server/fsm"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/server/state/table"
	"github.com/sheaf-run/agent/sheaf"
)

// noFiles is the digest of the manifest of an output without files, which need not be read.
var noFiles = table.Digest(sha256.Sum256(nil))

// comparison looks at some outputs of a run.
type comparison struct {
	term    *Term
	snap    *state.Snapshot
	run     *state.Run
	watched *watched
	origins *state.Origins
}

// kept is an output as a node keeps it.
type kept struct {
	partition int // of the run that is looked at
	state.Made
}

// place is a node, and the run there that made an output.
type place struct {
	node sheaf.NodeID
	run  sheaf.RunID
}

// errFound ends the reading of a run's outputs: it is known that they are in conflict.
var errFound = errors.New("a conflict was found")

func (c *comparison) read(ctx context.Context, partitions []int) error {
	lists := map[place][]kept{}
	var order []place
	for _, p := range partitions {
		m, ok := c.origins.Of(c.run, p)
		switch {
		case !ok || !c.origins.Reached(m):
			continue // looked at when it is made again, or its node is back
		case m.Row.Output == noFiles || m.Row.Output == table.Digest{}:
			c.watched.done(p)
			continue
		}
		at := place{c.snap.NodeByNumber(m.Row.Node).ID, m.Run.ID}
		if lists[at] == nil {
			order = append(order, at)
		}
		lists[at] = append(lists[at], kept{p, m})
	}
	var failed error
	for _, at := range order {
		err := c.readFrom(ctx, at.node, lists[at], func(k kept, files []sheaf.File) error { return c.add(ctx, k, files) })
		if errors.Is(err, errFound) {
			return nil
		}
		if failed == nil {
			failed = err
		}
	}
	return failed
}

// readFrom reads manifests that lie on one node, of one maker. What can never be read is passed over.
func (c *comparison) readFrom(ctx context.Context, node sheaf.NodeID, list []kept, use func(kept, []sheaf.File) error) error {
	for len(list) > 0 {
		rest, err := c.stream(ctx, node, list, use)
		if err == nil || errors.Is(err, errFound) || ctx.Err() != nil {
			return err
		}
		var gone *unreadable
		if !errors.As(err, &gone) || len(rest) == 0 {
			return fmt.Errorf("read outputs on node %s: %w", node, err)
		}
		c.term.Logger.Debug("an output is left to the merge", "run", c.run.ID, "partition", rest[0].partition, "error", err)
		c.watched.missed = true
		c.watched.done(rest[0].partition)
		list = rest[1:]
	}
	return nil
}

// unreadable is an output that is not read by trying again.
type unreadable struct{ error }

func (u *unreadable) Unwrap() error { return u.error }

// stream reads until something fails, and gives what is left, from that which failed on.
func (c *comparison) stream(ctx context.Context, node sheaf.NodeID, list []kept, use func(kept, []sheaf.File) error) ([]kept, error) {
	conn, err := c.term.Node(node)
	if err != nil {
		return list, err
	}
	ask := &wire.ReadRecordsRequest{Run: string(list[0].Run.ID)}
	for _, k := range list {
		ask.First, ask.Count, ask.Attempt = append(ask.First, uint32(k.Partition)), append(ask.Count, 1), append(ask.Attempt, k.Row.Attempt)
	}
	ctx, cancel := context.WithTimeout(ctx, conflictTimeout)
	defer cancel()
	stream, err := conn.ReadRecords(ctx, ask)
	if err != nil {
		return list, err
	}
	for i, k := range list {
		reply, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return list[i:], &unreadable{errors.New("the node keeps fewer records than it committed")}
		case err != nil && passes(err):
			return list[i:], err
		case err != nil:
			return list[i:], &unreadable{err}
		case table.Digest(sha256.Sum256(reply.ManifestJson)) != k.Row.Output:
			return list[i:], &unreadable{errors.New("the manifest is not the one that was committed")}
		}
		files, err := filesOf(reply.ManifestJson)
		if err != nil {
			return list[i:], &unreadable{err}
		}
		if err := use(k, files); err != nil {
			return list[i:], err
		}
	}
	return nil, nil
}

// passes reports whether asking again may help.
func passes(err error) bool {
	switch status.Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled, codes.Aborted:
		return true
	}
	return false
}

func filesOf(manifest []byte) ([]sheaf.File, error) {
	var files []sheaf.File
	for len(manifest) > 0 {
		line, rest, _ := bytes.Cut(manifest, []byte{'\n'})
		manifest = rest
		var f sheaf.File
		if err := json.Unmarshal(line, &f); err != nil {
			return nil, fmt.Errorf("read an output's manifest: %w", err)
		}
		files = append(files, f)
	}
	return files, nil
}

// add compares an output with those before it.
func (c *comparison) add(ctx context.Context, k kept, files []sheaf.File) error {
	for _, p := range c.watched.index.Add(k.partition, files) {
		m, ok := c.origins.Of(c.run, p)
		if !ok || !c.origins.Reached(m) {
			continue
		}
		node := c.snap.NodeByNumber(m.Row.Node).ID
		if err := c.readFrom(ctx, node, []kept{{p, m}}, func(other kept, theirs []sheaf.File) error {
			found, ok := conflict.Between(c.run.Job, k.partition, p, files, theirs)
			if !ok {
				return nil
			}
			return c.found(ctx, found, k, other)
		}); err != nil {
			return err
		}
	}
	c.watched.done(k.partition)
	return nil
}

// found has a conflict noted.
func (c *comparison) found(ctx context.Context, x sheaf.OutputConflict, a, b kept) error {
	if a.partition > b.partition {
		a, b = b, a
	}
	_, err := c.term.apply(ctx, &fsm.Command{Body: &fsm.Command_NoteConflict{NoteConflict: &fsm.NoteConflict{
		Run: string(c.run.ID), Output: x.Output, Path: []byte(x.Path), Directory: x.Directory,
		First: uint32(a.partition), Second: uint32(b.partition), FirstDigest: a.Row.Output[:], SecondDigest: b.Row.Output[:],
	}}})
	if class := sheaf.ClassOf(err); err != nil && class != sheaf.NotFound && class != sheaf.Conflict {
		return err
	}
	if err == nil {
		c.term.Logger.Warn("outputs of a run cannot be merged", "run", c.run.ID, "conflict", x.Text())
	}
	return errFound
}
