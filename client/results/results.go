// Package results opens results of other runs as inputs: it finds out where they lie, fetches
// their manifests, and reads their files from the nodes that have them, with the tokens of the
// servers. All may be called concurrently.
package results

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sheaf-run/agent/data/cache"
	"github.com/sheaf-run/agent/data/output/store"
	"github.com/sheaf-run/agent/data/source"
	"github.com/sheaf-run/agent/data/source/merged"
	"github.com/sheaf-run/agent/internal/datatoken"
	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/sheaf"
)

// Reader reads results.
type Reader struct {
	Node sheaf.NodeID // this one
	// Leader waits for the servers' leader.
	Leader func(ctx context.Context) (wire.ServersClient, uint64, error)
	// Peer is the service of another node.
	Peer func(id sheaf.NodeID) (client wire.NodesClient, done func(), err error)
	// Stores gives the outputs of a run that lie here.
	Stores func(run sheaf.RunID) (*store.Run, error)
	// Cache keeps manifests.
	Cache *cache.Cache
}

type grantsKey struct{}

// Granted lets what is done under a context read results with tokens that the servers gave for it. Without them a node may read
// the results that runs read of which it executes something.
func Granted(ctx context.Context, grants map[sheaf.RunID][]byte) context.Context {
	return context.WithValue(ctx, grantsKey{}, grants)
}

// Open is the opener of job:// sources, which name a run by now.
func (r *Reader) Open(rawURL string) (source.Source, error) {
	run, name, ok := sheaf.CutResult(rawURL)
	if !ok || sheaf.CheckName("run", run) != nil || sheaf.CheckName("output", name) != nil {
		return nil, &sheaf.Error{Class: sheaf.Invalid, Field: "source", Msg: fmt.Sprintf("source %q names no output of a job", rawURL), Hint: "write job://NAME/OUTPUT"}
	}
	x := &result{reader: r, run: sheaf.RunID(run)}
	return merged.New(merged.Config{Output: name, Manifest: x.manifest, Open: x.open}), nil
}

// result is a run's.
type result struct {
	reader *Reader
	run    sheaf.RunID
	pages  pages
}

// ask reads the first message of the servers' list of outputs.
func (x *result) ask(ctx context.Context, req *wire.ReadOutputsRequest) (*wire.Outputs, error) {
	leader, _, err := x.reader.Leader(ctx)
	if err != nil {
		return nil, err
	}
	if grants, ok := ctx.Value(grantsKey{}).(map[sheaf.RunID][]byte); ok {
		ctx = datatoken.With(ctx, grants[x.run])
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	req.Run, req.Node = string(x.run), string(x.reader.Node)
	stream, err := leader.ReadOutputs(ctx, req)
	if err != nil {
		return nil, failed("find the result of run "+string(x.run), err)
	}
	out, err := stream.Recv()
	if errors.Is(err, io.EOF) {
		return &wire.Outputs{}, nil
	}
	if err != nil {
		return nil, failed("find the result of run "+string(x.run), err)
	}
	return out, nil
}

// manifest has the merged manifest here, checked.
func (x *result) manifest(ctx context.Context) (string, func(), error) {
	at, err := x.ask(ctx, &wire.ReadOutputsRequest{Result: true})
	if err != nil {
		return "", nil, err
	}
	digest := hex.EncodeToString(at.GetSealedDigest())
	return x.reader.Cache.Get(ctx, cache.KeyOf("", "sha256:"+digest, cache.Unknown), func(ctx context.Context, w io.Writer) error {
		sum := sha256.New()
		if err := x.fetch(ctx, at, io.MultiWriter(w, sum)); err != nil {
			return fmt.Errorf("fetch the manifest of the result of run %s: %w", x.run, err)
		}
		if got := hex.EncodeToString(sum.Sum(nil)); got != digest {
			return &sheaf.Error{Class: sheaf.Unavailable, Msg: fmt.Sprintf("the manifest of the result of run %s has the digest %s, not %s", x.run, got, digest)}
		}
		return nil
	})
}

func (x *result) fetch(ctx context.Context, at *wire.Outputs, w io.Writer) error {
	node := sheaf.NodeID(at.GetSealedNode())
	if node == x.reader.Node {
		st, err := x.reader.Stores(x.run)
		if err != nil {
			return err
		}
		f, err := st.OpenMerged(at.GetSealedAttempt())
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.Copy(w, f)
		return err
	}
	peer, done, err := x.reader.Peer(node)
	if err != nil {
		return err
	}
	defer done()
	ctx, cancel := context.WithCancel(datatoken.With(ctx, at.GetToken()))
	defer cancel()
	stream, err := peer.ReadResult(ctx, &wire.ReadResultRequest{Run: string(x.run), MergeAttempt: at.GetSealedAttempt()})
	if err != nil {
		return failed("read it from node "+string(node), err)
	}
	for {
		piece, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return failed("read it from node "+string(node), err)
		}
		if _, err := w.Write(piece.GetData()); err != nil {
			return err
		}
	}
}

// failed is an error of a call, with the class that the other side gave it.
func failed(step string, err error) error {
	class := sheaf.Unavailable
	switch status.Code(err) {
	case codes.Canceled, codes.DeadlineExceeded:
		return fmt.Errorf("%s: %w", step, err)
	case codes.PermissionDenied:
		class = sheaf.Denied
	}
	return &sheaf.Error{Class: class, Msg: step + ": " + status.Convert(err).Message()}
}
