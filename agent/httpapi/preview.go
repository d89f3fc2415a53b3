package httpapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/sheaf-run/agent/api"
	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/sheaf"
)

// preview has a client that can read the inputs split them as a run would.
func (a *API) preview(w http.ResponseWriter, r *http.Request, in *struct{ RawBody []byte }) error {
	var req struct {
		Job   json.RawMessage `json:"job"`
		Limit int             `json:"limit"`
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
	job, err := json.Marshal(read)
	if err != nil {
		return fmt.Errorf("encode job: %w", err)
	}
	node, err := a.previewNode(*read)
	if err != nil {
		return err
	}
	conn, err := a.Server.Node(node)
	if err != nil {
		return err
	}
	stream, err := conn.Preview(r.Context(), &wire.PreviewRequest{JobJson: job, Limit: uint32(max(req.Limit, 0))})
	if err != nil {
		return nodeError(node, err)
	}
	out := newLines(w)
	for {
		reply, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return out.end(nil)
		}
		if err != nil {
			return out.end(nodeError(node, err))
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
