package httpapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/sheaf-run/agent/api"
	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/sheaf"
)

// recordBlock is how many partitions are asked of the nodes at once: the
// request stays below gRPC's message limit however its partitions are spread.
const recordBlock = 10_000

// records streams what the nodes keep of partitions' latest executions, in partition order.
// Each node is asked once for a block of partitions, and the answers are merged.
func (a *API) records(w http.ResponseWriter, r *http.Request, in *struct {
	RunRead
	Partitions string `query:"partitions" maxLength:"65536" doc:"only these, as in 3,7-9"`
	Logs       bool   `query:"logs" doc:"with stdout and stderr"`
}) error {
	snap, run, headers, err := a.lookup(r.Context(), in.ReadParams, in.RunParams)
	if err != nil {
		return err
	}
	of, err := rangesOf(run, in.Partitions)
	if err != nil {
		return err
	}
	headers.write(w)
	out := newLines(w)
	m := &recordMerge{api: a, request: r, snap: snap, run: run, logs: in.Logs, out: out}
	for _, x := range of {
		for i := x.First; i <= x.Last; i++ {
			if err := m.add(i); err != nil {
				return out.end(err)
			}
		}
	}
	return out.end(m.flush())
}

// recordMerge gathers a block of partitions by node and writes their records in order.
type recordMerge struct {
	api     *API
	request *http.Request
	snap    *state.Snapshot
	run     *state.Run
	logs    bool
	out     *lines

	order []recordOf // the block's partitions, in order
	asks  map[recordFrom]*wire.ReadRecordsRequest
}

// recordFrom is who is asked for records, and of which run: another where outputs were taken over.
type recordFrom struct {
	node sheaf.NodeID
	run  sheaf.RunID
}

type recordOf struct {
	recordFrom
	partition int
}

func (m *recordMerge) add(i int) error {
	p := m.snap.Partition(m.run, i)
	if p.Node == "" || !p.State.Terminal() || p.State == sheaf.PartitionCancelled {
		return nil
	}
	if m.asks == nil {
		m.asks = map[recordFrom]*wire.ReadRecordsRequest{}
	}
	maker, as := madeBy(m.run, p)
	from := recordFrom{p.Node, maker}
	ask := m.asks[from]
	if ask == nil {
		ask = &wire.ReadRecordsRequest{Run: string(maker), Logs: m.logs}
		m.asks[from] = ask
	}
	if n := len(ask.First) - 1; n >= 0 && ask.First[n]+ask.Count[n] == uint32(as) && ask.Attempt[n] == p.Attempt {
		ask.Count[n]++
	} else {
		ask.First, ask.Count, ask.Attempt = append(ask.First, uint32(as)), append(ask.Count, 1), append(ask.Attempt, p.Attempt)
	}
	m.order = append(m.order, recordOf{from, i})
	if len(m.order) >= recordBlock {
		return m.flush()
	}
	return nil
}

func (m *recordMerge) flush() error {
	streams := map[recordFrom]func() (*wire.ReadRecordsReply, error){}
	for from, ask := range m.asks {
		node := from.node
		conn, err := m.api.Server.Node(node)
		if err != nil {
			return err
		}
		stream, err := conn.ReadRecords(m.request.Context(), ask)
		if err != nil {
			return nodeError(node, err)
		}
		streams[from] = stream.Recv
	}
	for _, of := range m.order {
		node := of.node
		for more := true; more; {
			reply, err := streams[of.recordFrom]()
			if errors.Is(err, io.EOF) {
				return &sheaf.Error{Class: sheaf.Unavailable, Msg: fmt.Sprintf("node %s keeps fewer records than it committed", node)}
			}
			if err != nil {
				return nodeError(node, err)
			}
			rec := api.Record{Partition: of.partition, Attempt: reply.Attempt, ExitCode: int(reply.ExitCode), Stdout: reply.Stdout, Stderr: reply.Stderr, More: reply.More}
			if rec.Files, err = filesOf(reply.ManifestJson); err != nil {
				return fmt.Errorf("read manifest of partition %d: %w", of.partition, err)
			}
			if err := m.out.write(rec); err != nil {
				return err
			}
			more = reply.More
		}
	}
	m.order, m.asks = m.order[:0], nil
	return nil
}

// filesOf reads an output manifest, JSON lines of sheaf.File.
func filesOf(manifest []byte) ([]sheaf.File, error) {
	var files []sheaf.File
	for dec := json.NewDecoder(bytes.NewReader(manifest)); ; {
		var f sheaf.File
		if err := dec.Decode(&f); errors.Is(err, io.EOF) {
			return files, nil
		} else if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
}
