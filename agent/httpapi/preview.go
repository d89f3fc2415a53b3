package httpapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/sheaf-run/agent/api"
	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/server/reuse"
	"github.com/sheaf-run/agent/sheaf"
)

// maxDiff bounds the manifest that is compared with earlier runs: some two million files.
const maxDiff = 64 << 20

// preview has a client that can read the inputs split them as a run would.
func (a *API) preview(w http.ResponseWriter, r *http.Request, in *struct{ RawBody []byte }) error {
	var req struct {
		Job   json.RawMessage `json:"job"`
		Limit int             `json:"limit"`
		Diff  bool            `json:"diff"`
	}
	if err := sheaf.DecodeStrict(in.RawBody, &req); err != nil {
		return err
	}
	read, err := a.readJob(req.Job)
	if err != nil {
		return err
	}
	if err := a.namespaceFor(r.Context(), read); err != nil {
		return err
	}
	if err := mayReadResults(r.Context(), read); err != nil {
		return err
	}
	pinned, reads, err := a.Server.Snapshot().Pinned(*read)
	if err != nil {
		return err
	}
	job, err := json.Marshal(pinned)
	if err != nil {
		return fmt.Errorf("encode job: %w", err)
	}
	node, err := a.previewNode(*read)
	if err != nil {
		return err
	}
	ask := &wire.PreviewRequest{JobJson: job, Limit: uint32(max(req.Limit, 0)), Manifest: req.Diff}
	for _, run := range reads {
		grant, err := a.Server.Grant(node, run)
		if err != nil {
			return err
		}
		ask.Reads, ask.Grants = append(ask.Reads, string(run)), append(ask.Grants, grant)
	}
	conn, err := a.Server.Node(node)
	if err != nil {
		return err
	}
	stream, err := conn.Preview(r.Context(), ask)
	if err != nil {
		return nodeError(node, err)
	}
	out := newLines(w)
	var manifest [][]byte
	size := 0
	for {
		reply, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return out.end(nil)
		}
		if err != nil {
			return out.end(nodeError(node, err))
		}
		if chunk := reply.GetChunk(); chunk != nil {
			if size += len(chunk); size > maxDiff {
				return out.end(&sheaf.Error{Class: sheaf.TooLarge, Field: "diff", Msg: "the manifest is too large to be compared here", Limit: fmt.Sprintf("%d bytes", maxDiff), Hint: "plan without -diff"})
			}
			manifest = append(manifest, chunk)
			continue
		}
		if reply.GetTotal() != nil && req.Diff {
			err := a.Server.Diff(r.Context(), *read, manifest, func(l reuse.Line) error {
				return out.write(api.PreviewLine{Diff: &api.DiffLine{First: l.First, Last: l.Last, From: l.From, MadeAs: l.MadeAs, Reasons: l.Reasons}})
			})
			if err != nil {
				return out.end(err)
			}
		}
		line := api.PreviewLine{Partition: reply.GetPartitionJson()}
		if t := reply.GetTotal(); t != nil {
			line.Total = &api.PreviewTotal{
				Partitions: int(t.Partitions), Atoms: int64(t.Atoms), Bytes: int64(t.Bytes), Listed: int64(t.Listed),
				SmallestBytes: int64(t.SmallestBytes), LargestBytes: int64(t.LargestBytes), Warnings: t.Warnings,
			}
		}
		if err := out.write(line); err != nil {
			return nil // the caller went away
		}
	}
}

// previewNode is a node that can read all inputs of the job. Where the nodes that are there may
// not, the job asks for what the configuration denies.
func (a *API) previewNode(job sheaf.Job) (sheaf.NodeID, error) {
	refused := map[sheaf.NodeID]string{}
	for _, reason := range a.Server.Obstacles(job).Reasons {
		for _, id := range reason.Nodes {
			if reason.Code == "no_source" || reason.Code == "down" {
				refused[id] = reason.Text
			}
		}
	}
	denied := ""
	for n := range a.Server.Snapshot().Nodes() {
		if n.Status != sheaf.NodeReady {
			continue
		}
		if text, no := refused[n.ID]; no {
			denied = text
			continue
		}
		return n.ID, nil
	}
	if denied == "" {
		return "", &sheaf.Error{Class: sheaf.Unavailable, Msg: "no node can read the inputs: the cluster has no nodes that are up", Hint: "`agent node list` shows them"}
	}
	return "", &sheaf.Error{
		Class: sheaf.Denied, Field: "input.source", Msg: "no node can read the inputs: " + denied,
		Hint: "list the directory as a file_root in the client block of a node's configuration",
	}
}
