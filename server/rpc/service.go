package rpc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/server/fsm"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/sheaf"
)

const (
	// maxNodeJSON bounds what a client says of itself; with its frame it fits a command.
	maxNodeJSON = 48 << 10
	// outputsAtOnce is how many outputs one message of ReadOutputs holds: 40 bytes each.
	outputsAtOnce = 4096
)

// Service answers clients. It holds nothing of a term but asks for the hub of
// the present one.
type Service struct {
	wire.UnimplementedServersServer
	region  string
	leading func() (*Hub, error)
	store   *state.Store

	keys Keys

	registering *registering
}

// NewService makes the service. leading gives the hub while this server leads,
// else an error that says who does; keys the keys of secrets.
func NewService(region string, leading func() (*Hub, error), store *state.Store, keys Keys) *Service {
	return &Service{region: region, leading: leading, store: store, keys: keys, registering: newRegistering()}
}

// Register makes a node known and begins its next session.
func (s *Service) Register(ctx context.Context, req *wire.RegisterRequest) (*wire.RegisterResponse, error) {
	resp, err := s.register(ctx, req)
	return resp, unaryStatus(ctx, err)
}

func (s *Service) register(ctx context.Context, req *wire.RegisterRequest) (*wire.RegisterResponse, error) {
	h, err := s.leading()
	if err != nil {
		return nil, err
	}
	if len(req.NodeJson) > maxNodeJSON {
		return nil, &sheaf.Error{Class: sheaf.TooLarge, Field: "node", Msg: fmt.Sprintf("the node describes itself in %d bytes", len(req.NodeJson)), Limit: fmt.Sprintf("%d bytes", maxNodeJSON), Hint: "give it fewer attributes"}
	}
	var n sheaf.Node
	if err := json.Unmarshal(req.NodeJson, &n); err != nil {
		return nil, &sheaf.Error{Class: sheaf.Invalid, Field: "node", Msg: "the node's description cannot be read", Err: err}
	}
	if err := sheaf.CheckName("node", string(n.ID)); err != nil {
		return nil, err
	}
	cluster := h.Snapshot().Cluster()
	if req.ClusterId != "" && req.ClusterId != cluster.ID {
		return nil, &sheaf.Error{Class: sheaf.Denied, Field: "data_dir", Msg: fmt.Sprintf("the node belongs to cluster %s, and this is %s", req.ClusterId, cluster.ID), Hint: "give the client a data directory of its own for this cluster"}
	}
	if n.Region != s.region {
		return nil, &sheaf.Error{Class: sheaf.Denied, Field: "region", Msg: fmt.Sprintf("the node is of region %q, and this server of %q", n.Region, s.region)}
	}
	defer s.registering.hold(n.ID)()
	if err := mayRegister(ctx, h.Snapshot(), &n); err != nil {
		return nil, err
	}
	if h.taken(n.ID, req.BootId) {
		return nil, &sheaf.Error{Class: sheaf.Conflict, Field: "data_dir", Msg: fmt.Sprintf("another agent runs with this node's identity, %s: was the data directory copied?", n.ID), Hint: "give this agent an empty data directory"}
	}
	at := time.Now()
	reply, err := h.apply(ctx, &fsm.Command{Body: &fsm.Command_RegisterNode{RegisterNode: &fsm.RegisterNode{NodeJson: req.NodeJson, BootId: req.BootId}}})
	if err != nil {
		return nil, fmt.Errorf("register node %s: %w", n.ID, err)
	}
	h.Renew(n.ID, at)
	h.Outdate(n.ID)
	return &wire.RegisterResponse{Session: reply.Session, ClusterId: cluster.ID}, nil
}

// Session carries a node's work until the stream or the term ends.
func (s *Service) Session(st grpc.BidiStreamingServer[wire.FromClient, wire.FromServer]) error {
	h, err := s.leading()
	if err == nil {
		err = h.Serve(st)
	}
	return asStatus(err, st.SetTrailer)
}

// PutManifest stores a manifest's chunks, in order, and its seal. Each is
// acknowledged once it is committed.
func (s *Service) PutManifest(st grpc.BidiStreamingServer[wire.PutManifestRequest, wire.PutManifestResponse]) error {
	return asStatus(s.putManifest(st), st.SetTrailer)
}

func (s *Service) putManifest(st grpc.BidiStreamingServer[wire.PutManifestRequest, wire.PutManifestResponse]) error {
	h, err := s.leading()
	if err != nil {
		return err
	}
	for {
		req, err := st.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		c := &fsm.Command{}
		switch b := req.Body.(type) {
		case *wire.PutManifestRequest_Chunk:
			if len(b.Chunk.GetData()) > state.MaxChunk {
				return &sheaf.Error{Class: sheaf.TooLarge, Msg: fmt.Sprintf("a chunk has %d bytes", len(b.Chunk.GetData())), Limit: fmt.Sprintf("%d bytes", state.MaxChunk)}
			}
			if err := speaksFor(st.Context(), h.Snapshot(), sheaf.NodeID(b.Chunk.GetNode())); err != nil {
				return err
			}
			c.Body = &fsm.Command_PutChunk{PutChunk: &fsm.PutChunk{Chunk: b.Chunk}}
		case *wire.PutManifestRequest_Seal:
			if err := speaksFor(st.Context(), h.Snapshot(), sheaf.NodeID(b.Seal.GetNode())); err != nil {
				return err
			}
			c.Body = &fsm.Command_SealManifest{SealManifest: &fsm.SealManifest{Seal: b.Seal}}
		default:
			return &sheaf.Error{Class: sheaf.Unsupported, Msg: fmt.Sprintf("unknown part of a manifest %T", req.Body)}
		}
		reply, err := h.apply(st.Context(), c)
		switch reply.Verdict {
		case wire.Verdict_VERDICT_SUPERSEDED, wire.Verdict_VERDICT_CANCELLED:
			return status.Error(codes.Aborted, fmt.Sprint(err))
		case wire.Verdict_VERDICT_RESEND:
			return status.Error(codes.Unavailable, fmt.Sprint(err))
		}
		if err != nil {
			return fmt.Errorf("store the manifest: %w", err)
		}
		if err := st.Send(&wire.PutManifestResponse{Contiguous: reply.Contiguous, Sealed: reply.Sealed}); err != nil {
			return err
		}
	}
}

// ReadManifest gives the chunks in which the wanted partitions begin, and those
// behind them that only go on with the last one.
func (s *Service) ReadManifest(req *wire.ReadManifestRequest, st grpc.ServerStreamingServer[wire.ManifestChunk]) error {
	return asStatus(s.readManifest(req, st), st.SetTrailer)
}

func (s *Service) readManifest(req *wire.ReadManifestRequest, st grpc.ServerStreamingServer[wire.ManifestChunk]) error {
	if _, err := s.leading(); err != nil {
		return err
	}
	snap := s.store.Snapshot()
	r := snap.Run(sheaf.RunID(req.Run))
	if err := worksOn(st.Context(), snap, r); err != nil {
		return err
	}
	if r == nil || !r.Manifest.Sealed || r.Manifest.Attempt != req.SplitAttempt {
		return &sheaf.Error{Class: sheaf.NotFound, Msg: fmt.Sprintf("run %s has no sealed manifest of split attempt %d", req.Run, req.SplitAttempt)}
	}
	end := uint64(req.First) + uint64(req.Count)
	if req.Count == 0 || end > uint64(r.Manifest.Partitions) {
		return &sheaf.Error{Class: sheaf.Invalid, Msg: fmt.Sprintf("partitions %d+%d of run %s, which has %d", req.First, req.Count, req.Run, r.Manifest.Partitions)}
	}
	for seq := r.ChunkOf(int(req.First)); seq < len(r.Manifest.Chunks); seq++ {
		k := r.Manifest.Chunks[seq]
		if uint64(k.First) >= end && k.Count > 0 {
			break
		}
		data, err := s.store.Chunk(r, seq)
		if err != nil {
			return err
		}
		if err := st.Send(&wire.ManifestChunk{Run: req.Run, SplitAttempt: req.SplitAttempt, Sequence: uint32(seq), First: k.First, Count: k.Count, Data: data}); err != nil {
			return err
		}
	}
	return nil
}

// ReadOutputs lists committed outputs in partition order. For a merge or a reduce it ends
// with ABORTED when that attempt is no longer the valid one.
func (s *Service) ReadOutputs(req *wire.ReadOutputsRequest, st grpc.ServerStreamingServer[wire.Outputs]) error {
	return asStatus(s.readOutputs(req, st), st.SetTrailer)
}

func (s *Service) readOutputs(req *wire.ReadOutputsRequest, st grpc.ServerStreamingServer[wire.Outputs]) error {
	h, err := s.leading()
	if err != nil {
		return err
	}
	if err := h.verify.verified(st.Context()); err != nil {
		return err
	}
	frozen := func(r *state.Run) error {
		if r == nil {
			return &sheaf.Error{Class: sheaf.NotFound, Msg: "there is no run " + req.Run}
		}
		if req.MergeAttempt != 0 && (r.Generation != req.Generation || r.Merge.Attempt != req.MergeAttempt || !r.Merge.Active && !r.Merge.Done) {
			return status.Errorf(codes.Aborted, "merge attempt %d of run %s is not valid any more", req.MergeAttempt, req.Run)
		}
		if req.ReduceAttempt != 0 && (r.Generation != req.Generation || r.Reduce.Attempt != req.ReduceAttempt || !r.Reduce.Active) {
			return status.Errorf(codes.Aborted, "attempt %d at the reduce of run %s is not valid any more", req.ReduceAttempt, req.Run)
		}
		return nil
	}
	snap := s.store.Snapshot()
	if err := ownReader(st.Context(), snap, sheaf.NodeID(req.Node)); err != nil {
		return err
	}
	r := snap.Run(sheaf.RunID(req.Run))
	if err := frozen(r); err != nil {
		return err
	}
	reader := snap.Node(sheaf.NodeID(req.Node))
	if err := merges(st.Context(), reader, r, req.MergeAttempt, req.ReduceAttempt); err != nil && !h.reads(st.Context(), snap, reader, r) {
		return err
	}
	if req.Result {
		return h.sendResult(st, snap, reader, r)
	}
	if r.Partitions == nil {
		return nil
	}
	names := &nodeNames{snap: snap, place: map[uint32]uint32{}}
	makers := map[sheaf.RunID]uint32{}
	fresh := func() *wire.Outputs {
		if reader == nil {
			return &wire.Outputs{}
		}
		return &wire.Outputs{Token: h.token(&reader.Node, r.ID, nil)}
	}
	out := fresh()
	if req.MergeAttempt != 0 && (r.Publishes() || r.Result.Publishing) {
		out.Publish = r.Job.Publish.To
		if r.Result.Publishing {
			out.SealedAttempt, out.SealedDigest = r.Result.Attempt, r.Result.Digest[:]
			return st.Send(out)
		}
		if err := st.Send(out); err != nil {
			return err
		}
		out = fresh()
	} else if req.MergeAttempt != 0 && req.From == 0 && reader != nil {
		if x := snap.Unchanged(r); x != nil {
			if err := st.Send(h.unchanged(snap, reader, x)); err != nil {
				return err
			}
		}
	}
	sent, origins := 0, snap.Origins()
	for i := int(req.From); i < r.Partitions.Len(); {
		ranges := r.Committed(i, 1)
		if len(ranges) == 0 {
			break
		}
		for i = ranges[0].First; i <= ranges[0].Last; i++ {
			m, ok := origins.Of(r, i)
			if !ok {
				return &sheaf.Error{Class: sheaf.Unavailable, Msg: fmt.Sprintf("the output of partition %d of run %s was taken over from a run that has it no more", i, r.ID)}
			}
			out.Partition = append(out.Partition, uint32(i))
			out.Attempt = append(out.Attempt, m.Row.Attempt)
			out.Node = append(out.Node, names.of(m.Row.Node, out))
			out.Digest = append(out.Digest, m.Row.Output[:]...)
			place := uint32(0)
			if m.Run != r {
				if place, ok = makers[m.Run.ID]; !ok {
					out.Runs = append(out.Runs, string(m.Run.ID))
					place = uint32(len(out.Runs))
					makers[m.Run.ID] = place
					if reader != nil {
						out.Tokens = append(out.Tokens, h.token(&reader.Node, m.Run.ID, nil))
					}
				}
			}
			out.MadeBy, out.MadeAs = append(out.MadeBy, place), append(out.MadeAs, uint32(m.Partition))
			if sent++; sent == int(req.Most) {
				return st.Send(compact(out))
			}
			if len(out.Partition) == outputsAtOnce {
				if err := st.Send(compact(out)); err != nil {
					return err
				}
				out = fresh()
				clear(names.place)
				clear(makers)
			}
		}
	}
	if r.Reduce.Done && req.ReduceAttempt == 0 && int(req.From) <= r.Partitions.Len() { // what it made stands behind the partitions
		out.Partition, out.Attempt = append(out.Partition, uint32(r.Partitions.Len())), append(out.Attempt, r.Reduce.Attempt)
		out.Node, out.Digest = append(out.Node, names.of(r.Reduce.Node, out)), append(out.Digest, r.Reduce.Output[:]...)
		out.MadeBy, out.MadeAs = append(out.MadeBy, 0), append(out.MadeAs, uint32(r.Partitions.Len()))
	}
	if len(out.Partition) > 0 {
		if err := st.Send(compact(out)); err != nil {
			return err
		}
	}
	return frozen(s.store.Snapshot().Run(sheaf.RunID(req.Run)))
}

// compact leaves out who made what where the run has made all itself.
func compact(out *wire.Outputs) *wire.Outputs {
	if len(out.Runs) == 0 {
		out.MadeBy, out.MadeAs = nil, nil
	}
	return out
}

// nodeNames gives each node its place in a message's list of nodes.
type nodeNames struct {
	snap  *state.Snapshot
	place map[uint32]uint32
}

func (n *nodeNames) of(number uint32, out *wire.Outputs) uint32 {
	at, ok := n.place[number]
	if !ok {
		at = uint32(len(out.Nodes))
		n.place[number] = at
		id := ""
		if node := n.snap.NodeByNumber(number); node != nil {
			id = string(node.ID)
		}
		out.Nodes = append(out.Nodes, id)
	}
	return at
}

// SealResult is the point of no return of a merge.
func (s *Service) SealResult(ctx context.Context, req *wire.SealResultRequest) (*wire.SealResultResponse, error) {
	h, err := s.leading()
	if err != nil {
		return nil, unaryStatus(ctx, err)
	}
	if err := speaksFor(ctx, h.Snapshot(), sheaf.NodeID(req.Node)); err != nil {
		return nil, unaryStatus(ctx, err)
	}
	reply, err := h.apply(ctx, &fsm.Command{Body: &fsm.Command_SealResult{SealResult: &fsm.SealResult{Request: req}}})
	if reply.Verdict != wire.Verdict_VERDICT_UNKNOWN {
		return &wire.SealResultResponse{Verdict: reply.Verdict}, nil
	}
	if err != nil {
		return nil, unaryStatus(ctx, fmt.Errorf("seal the result: %w", err))
	}
	return &wire.SealResultResponse{}, nil
}
