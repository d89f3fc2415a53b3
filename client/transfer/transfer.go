// Package transfer copies committed outputs, with their records and logs, from
// another node into this one's store: a node is being emptied. Everything is checked against
// the digests that the log holds before it counts, and is durable before Do says
// that it is here; where it lies is for the log to say.
package transfer

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sheaf-run/agent/data/output"
	"github.com/sheaf-run/agent/data/output/store"
	"github.com/sheaf-run/agent/internal/datatoken"
	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/sheaf"
)

// filesAtOnce is how many files of one attempt are read at once: enough to hide
// a round trip.
const filesAtOnce = 8

// Transfer is one batch.
type Transfer struct {
	Fetch *wire.Fetch
	Store *store.Store
	// Peer is the service of the node at an address.
	Peer func(address string) (wire.NodesClient, error)
}

// Do copies what it can. What is here is in the answer, with why the rest is not.
func (t *Transfer) Do(ctx context.Context) *wire.Fetched {
	f := t.Fetch
	answer := &wire.Fetched{Id: f.GetId(), Kept: &wire.Executions{Run: f.GetOutputs().GetRun()}}
	if err := t.do(datatoken.With(ctx, f.GetToken()), answer); err != nil {
		answer.Error = err.Error()
	}
	return answer
}

func (t *Transfer) do(ctx context.Context, answer *wire.Fetched) error {
	o := t.Fetch.GetOutputs()
	st, err := t.Store.Run(sheaf.RunID(o.GetRun()))
	if err != nil {
		return err
	}
	peer, err := t.Peer(t.Fetch.GetAddress())
	if err != nil {
		return err
	}
	if t.Fetch.GetMergeAttempt() > 0 {
		if err := t.result(ctx, st, peer); err != nil {
			return err
		}
		answer.Result = true
	}
	wanted, err := t.wanted()
	if err != nil || len(wanted) == 0 {
		return err
	}
	kept, err := t.records(ctx, st, peer, wanted)
	if len(kept) == 0 {
		return err
	}
	// Before it is said to be here. What is here and was not said is asked about
	// after a restart like any result, and kept or deleted as the log says.
	if serr := t.Store.Sync(); serr != nil {
		return errors.Join(err, serr)
	}
	keys := make([]store.Key, len(kept))
	for i, w := range kept {
		keys[i] = w.key
	}
	if aerr := st.Ack(keys); aerr != nil {
		return errors.Join(err, aerr)
	}
	for _, w := range kept {
		answer.Kept.First = append(answer.Kept.First, uint32(w.key.Partition))
		answer.Kept.Count = append(answer.Kept.Count, 1)
		answer.Kept.Attempt = append(answer.Kept.Attempt, w.key.Attempt)
	}
	return err
}

// wanted is an attempt to copy.
type wanted struct {
	key    store.Key
	digest [32]byte // zeros for one that failed
}

func (t *Transfer) wanted() ([]wanted, error) {
	o := t.Fetch.GetOutputs()
	if len(o.First) != len(o.Count) || len(o.First) != len(o.Attempt) {
		return nil, errors.New("the list of outputs has columns of different lengths")
	}
	var list []wanted
	for i, first := range o.First {
		for p := range min(o.Count[i], sheaf.MaxPartitions) {
			at := 32 * len(list)
			if at+32 > len(t.Fetch.Digest) {
				return nil, errors.New("the list of outputs has fewer digests than outputs")
			}
			list = append(list, wanted{store.Key{Partition: int(first + p), Attempt: o.Attempt[i]}, [32]byte(t.Fetch.Digest[at:])})
		}
	}
	return list, nil
}

// result copies the merged manifest.
func (t *Transfer) result(ctx context.Context, st *store.Run, peer wire.NodesClient) error {
	attempt := t.Fetch.GetMergeAttempt()
	if f, err := st.OpenMerged(attempt); err == nil {
		f.Close()
		return nil
	}
	stream, err := peer.ReadResult(ctx, &wire.ReadResultRequest{Run: t.Fetch.Outputs.Run, MergeAttempt: attempt})
	if err != nil {
		return fmt.Errorf("read the merged manifest: %w", err)
	}
	w, err := st.CreateMerged(attempt)
	if err != nil {
		return err
	}
	defer func() { _ = w.Close() }() // after Commit there is nothing left to lose
	sum := sha256.New()
	for {
		p, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("read the merged manifest: %w", err)
		}
		sum.Write(p.GetData())
		if _, err := w.Write(p.GetData()); err != nil {
			return err
		}
	}
	if got := [32]byte(sum.Sum(nil)); got != [32]byte(t.Fetch.GetMergedDigest()) {
		return fmt.Errorf("the merged manifest has the digest %x, not %x", got, t.Fetch.GetMergedDigest())
	}
	return w.Commit()
}

// records copies the wanted attempts and gives those that are in the store.
func (t *Transfer) records(ctx context.Context, st *store.Run, peer wire.NodesClient, list []wanted) ([]wanted, error) {
	var kept []wanted
	req := &wire.ReadRecordsRequest{Run: t.Fetch.Outputs.Run, Logs: true}
	var asked []wanted
	for _, w := range list {
		if rec, err := st.Record(w.key.Partition, w.key.Attempt); err == nil && rec.Digest == w.digest {
			kept = append(kept, w) // an earlier answer was lost
			continue
		}
		asked = append(asked, w)
		req.First, req.Count, req.Attempt = append(req.First, uint32(w.key.Partition)), append(req.Count, 1), append(req.Attempt, w.key.Attempt)
	}
	if len(asked) == 0 {
		return kept, nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := peer.ReadRecords(ctx, req)
	if err != nil {
		return kept, fmt.Errorf("read records: %w", err)
	}
	for _, w := range asked {
		if err := t.record(ctx, st, peer, stream.Recv, w); err != nil {
			return kept, fmt.Errorf("partition %d, attempt %d: %w", w.key.Partition, w.key.Attempt, err)
		}
		kept = append(kept, w)
	}
	return kept, nil
}

// record copies one attempt: its record and logs, of which recv gives the
// pieces, and its files.
func (t *Transfer) record(ctx context.Context, st *store.Run, peer wire.NodesClient, recv func() (*wire.ReadRecordsReply, error), w wanted) (err error) {
	first, err := recv()
	if err != nil {
		return fmt.Errorf("read its record: %w", err)
	}
	if int(first.GetPartition()) != w.key.Partition || first.GetAttempt() != w.key.Attempt {
		return fmt.Errorf("the record of attempt %d at partition %d came instead", first.GetAttempt(), first.GetPartition())
	}
	succeeded := w.digest != [32]byte{}
	if got := output.Digest(first.GetManifestJson()); succeeded && got != w.digest {
		return fmt.Errorf("its manifest has the digest %x, not %x as committed", got, w.digest)
	}
	logs, err := st.Logs(w.key)
	if err != nil {
		return err
	}
	taken := false
	defer func() {
		if !taken {
			logs.Discard()
		}
	}()
	for m := first; ; {
		for i, data := range [][]byte{m.GetStdout(), m.GetStderr()} {
			if len(data) > 0 {
				if err := logs.Write(i == 1, data); err != nil {
					return err
				}
			}
		}
		if !m.GetMore() {
			break
		}
		if m, err = recv(); err != nil {
			return fmt.Errorf("read its logs: %w", err)
		}
	}
	manifest := first.GetManifestJson()
	if !succeeded {
		manifest = nil // files of a failed attempt are not kept
	}
	if err := t.files(ctx, st, peer, w.key, manifest); err != nil {
		return errors.Join(err, st.DeleteOutput(w.key))
	}
	taken = true
	return st.Append(store.Record{
		Partition: w.key.Partition, Attempt: w.key.Attempt, Generation: first.GetGeneration(),
		Outcome: sheaf.Outcome(first.GetOutcome()), Failure: sheaf.FailureKind(first.GetFailure()), ExitCode: first.GetExitCode(),
		Started: time.UnixMilli(first.GetStartedMs()), Duration: time.Duration(first.GetDurationMs()) * time.Millisecond,
		CPU: time.Duration(first.GetCpuMs()) * time.Millisecond, PeakMemory: int64(first.GetPeakMemory()), Message: first.GetMessage(),
		Manifest: manifest, Digest: w.digest,
	}, logs)
}

// files copies the files of an attempt, and makes its links.
func (t *Transfer) files(ctx context.Context, st *store.Run, peer wire.NodesClient, k store.Key, manifest []byte) error {
	list, err := output.Decode(manifest)
	if err != nil || len(list.Files) == 0 {
		return err
	}
	var names []string
	for _, f := range list.Files {
		if !slices.Contains(names, f.Output) {
			names = append(names, f.Output)
		}
	}
	dirs, err := st.OutputDirs(k, names)
	if err != nil {
		return err
	}
	roots := map[string]*os.Root{}
	for _, d := range dirs {
		root, err := os.OpenRoot(d.Host)
		if err != nil {
			return err
		}
		defer func() { _ = root.Close() }()
		roots[d.Name] = root
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(filesAtOnce)
	for _, f := range list.Files {
		g.Go(func() error {
			if err := t.file(ctx, roots[f.Output], peer, k, f); err != nil {
				return fmt.Errorf("file %q of output %q: %w", output.Clip(f.Path), f.Output, err)
			}
			return nil
		})
	}
	return g.Wait()
}

func (t *Transfer) file(ctx context.Context, root *os.Root, peer wire.NodesClient, k store.Key, f sheaf.File) error {
	if err := root.MkdirAll(path.Dir(f.Path), 0o755); err != nil {
		return err
	}
	if f.Link != "" {
		return root.Symlink(f.Link, f.Path) // whoever reads through it goes by a root as well
	}
	to, err := root.OpenFile(f.Path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer to.Close()
	stream, err := peer.ReadFile(ctx, &wire.ReadFileRequest{Run: t.Fetch.Outputs.Run, Partition: uint32(k.Partition), Attempt: k.Attempt, Output: f.Output, Path: []byte(f.Path)})
	if err != nil {
		return err
	}
	sum, size := sha256.New(), int64(0)
	for {
		p, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if size += int64(len(p.GetData())); size > f.Size {
			return fmt.Errorf("it has more than its %d bytes", f.Size)
		}
		sum.Write(p.GetData())
		if _, err := to.Write(p.GetData()); err != nil {
			return err
		}
	}
	if got := hex.EncodeToString(sum.Sum(nil)); size != f.Size || got != f.SHA256 {
		return fmt.Errorf("it has %d bytes with the digest %s, not %d with %s", size, got, f.Size, f.SHA256)
	}
	if err := to.Chmod(os.FileMode(f.Mode) & 0o777); err != nil {
		return err
	}
	return to.Close()
}
