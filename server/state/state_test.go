package state_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/sheaf-run/agent/internal/leaktest"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/server/state/table"
	"github.com/sheaf-run/agent/sheaf"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

func job(name string) (*sheaf.Job, []byte) {
	return &sheaf.Job{Name: name, Namespace: "default", Count: 300}, fmt.Appendf(nil, `{"name":%q,"namespace":"default","count":300,"retry":{"delay":"0s","max_delay":"0s"},"task":{"kill_timeout":"0s"},"failure":{"tolerate":0}}`, name)
}

// filled is a store with runs of one job, a node, a manifest, a backup and a tombstone.
func filled(t *testing.T, chunks state.ChunkStore, runs int) *state.Store {
	t.Helper()
	s := state.New(chunks)
	x := s.Begin(1, 1000)
	x.SetCluster(state.Cluster{ID: "c", Region: "here"})
	x.PutNode(&state.Node{Node: sheaf.Node{ID: "n1", Status: sheaf.NodeReady, Session: 1, Eligible: true}, Joined: true})
	x.Commit()
	for i := range runs {
		j, body := job("j")
		x := s.Begin(uint64(i+2), int64(1001+i))
		r := x.InsertRun(&state.Run{ID: sheaf.RunID(fmt.Sprintf("r%d", i)), Job: j, JobJSON: body, Status: sheaf.RunRunning, Generation: 1, Partitions: table.New(300)})
		row := r.Table().Row(270)
		row.State, row.Fence, row.Attempt, row.Node = sheaf.PartitionAssigned, 2, 1, 1
		r.Table().Set(270, row)
		x.PutBackup(r, &state.Backup{Run: r.ID, Partition: 270, Attempt: 2, Node: 1})
		r.Failed(7, state.ErrorItem{Kind: sheaf.FailExit, ExitCode: 3, Message: "exit code 3", Stderr: "no"})
		data := fmt.Appendf(nil, "the manifest of run %d", i)
		if err := chunks.Put(r.ID, 1, 0, data); err != nil {
			t.Fatal(err)
		}
		r.Change().Manifest = state.Manifest{Attempt: 1, Chunks: []state.Chunk{{Count: 300, Length: uint32(len(data)), Digest: digest(data)}}}
		x.Commit()
	}
	return s
}

func image(t *testing.T, s *state.Store) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := s.Snapshot().Persist(&b, s.Chunks()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestSnapshotComesBackWhole(t *testing.T) {
	s := filled(t, &state.MemoryChunks{}, 3)
	files, err := state.OpenFileChunks(filepath.Join(t.TempDir(), "manifests"))
	if err != nil {
		t.Fatal(err)
	}
	if err := files.Put("left-over", 1, 0, []byte("of a run that is gone")); err != nil {
		t.Fatal(err)
	}
	again := filled(t, files, 1)
	was := again.Snapshot()
	if err := again.Restore(bytes.NewReader(image(t, s))); err != nil {
		t.Fatal(err)
	}
	select {
	case <-was.Abandoned():
	default:
		t.Error("those who watched the state before are not told")
	}
	snap := again.Snapshot()
	if snap.Digest() != s.Snapshot().Digest() || snap.Index() != s.Snapshot().Index() || snap.TimeMs() != s.Snapshot().TimeMs() {
		t.Error("the state that comes back is another")
	}
	r := snap.Run("r1")
	if c := r.Counts(); c.Assigned != 1 || c.Pending != 299 {
		t.Errorf("counts are %+v", c)
	}
	if got := snap.AssignedOn(r, 1); got != 2 {
		t.Errorf("%d executions are on the node, not the one and its backup", got)
	}
	if b, err := again.Chunk(r, 0); err != nil || string(b) != "the manifest of run 1" {
		t.Errorf("the manifest is %q, %v", b, err)
	}
	if _, err := files.Get("left-over", 1, 0, 1); err == nil {
		t.Error("the manifest of a run that is gone is still there")
	}
	if !bytes.Equal(image(t, again), image(t, s)) {
		t.Error("it is written otherwise")
	}
}

// TestDamagedSnapshotsAreRefused flips and cuts the bytes of a snapshot, one place at a
// time: each is noticed, and the state stays as it was.
func TestDamagedSnapshotsAreRefused(t *testing.T) {
	good := image(t, filled(t, &state.MemoryChunks{}, 1))
	s := filled(t, &state.MemoryChunks{}, 2)
	before := s.Snapshot().Digest()
	for at := 0; at < len(good); at += 1 + at/200 {
		bad := slices.Clone(good)
		bad[at] ^= 0x41
		if err := s.Restore(bytes.NewReader(bad)); err == nil {
			t.Fatalf("a flipped byte at %d of %d is not noticed", at, len(good))
		}
		if err := s.Restore(bytes.NewReader(good[:at])); !errors.Is(err, state.ErrDamaged) {
			t.Fatalf("cut at %d: %v", at, err)
		}
	}
	newer := slices.Clone(good)
	binary.LittleEndian.PutUint32(newer[8:], 2)
	if err := s.Restore(bytes.NewReader(newer)); !errors.Is(err, state.ErrNewer) {
		t.Errorf("a newer version: %v", err)
	}
	if s.Snapshot().Digest() != before {
		t.Error("the state has changed")
	}
}

func TestChunksAreCheckedAgainstTheirDigest(t *testing.T) {
	dir := t.TempDir()
	files, err := state.OpenFileChunks(dir)
	if err != nil {
		t.Fatal(err)
	}
	s := filled(t, files, 1)
	if err := files.Sync(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "r0", "1")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[3] ^= 1
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Chunk(s.Snapshot().Run("r0"), 0); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("a flipped byte: %v", err)
	}
	if err := os.Truncate(path, 4); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Chunk(s.Snapshot().Run("r0"), 0); err == nil {
		t.Error("a cut file is read")
	}
	if _, err := s.Chunk(s.Snapshot().Run("r0"), 1); sheaf.ClassOf(err) != sheaf.NotFound {
		t.Errorf("a chunk that is not there: %v", err)
	}
}

func TestChunkStores(t *testing.T) {
	files, err := state.OpenFileChunks(filepath.Join(t.TempDir(), "a"))
	if err != nil {
		t.Fatal(err)
	}
	for name, s := range map[string]state.ChunkStore{"files": files, "memory": &state.MemoryChunks{}} {
		t.Run(name, func(t *testing.T) {
			put := func(run sheaf.RunID, attempt uint32, offset int64, data string) {
				if err := s.Put(run, attempt, offset, []byte(data)); err != nil {
					t.Fatal(err)
				}
			}
			put("r", 1, 0, "one")
			put("r", 1, 3, "two")
			put("r", 1, 3, "two")
			put("r", 2, 0, "new")
			put("q", 1, 0, "other")
			if b, err := s.Get("r", 1, 2, 4); err != nil || string(b) != "etwo" {
				t.Errorf("%q, %v", b, err)
			}
			if _, err := s.Get("r", 1, 4, 4); err == nil {
				t.Error("bytes behind the end are read")
			}
			if err := s.Delete("r", 2); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Get("r", 1, 0, 1); err == nil {
				t.Error("an abandoned attempt is still there")
			}
			if b, err := s.Get("r", 2, 0, 3); err != nil || string(b) != "new" {
				t.Errorf("%q, %v", b, err)
			}
			if err := s.Retain(func(r sheaf.RunID) bool { return r == "q" }); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Get("r", 2, 0, 1); err == nil {
				t.Error("a run that is not kept is there")
			}
			if _, err := s.Get("q", 1, 0, 5); err != nil {
				t.Error(err)
			}
			if err := s.Sync(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestSnapshotsStayAsTheyWere(t *testing.T) {
	s := filled(t, &state.MemoryChunks{}, 1)
	old := s.Snapshot()
	run, changed := old.WatchRun("r0")
	var readers sync.WaitGroup
	for range 2 { // run with -race
		readers.Go(func() {
			for range 200 {
				if c := old.Run("r0").Counts(); c.Succeeded != 0 {
					t.Error("a snapshot changes")
				}
				now := s.Snapshot()
				if c := now.Run("r0").Counts(); c.Pending+c.Assigned+c.Succeeded != 300 {
					t.Errorf("counts are %+v", c)
				}
				now.Digest()
			}
		})
	}
	for i := range 200 {
		x := s.Begin(uint64(10+i), 0)
		r := x.Run("r0")
		row := r.Table().Row(i)
		row.State = sheaf.PartitionSucceeded
		r.Table().Set(i, row)
		x.Commit()
	}
	readers.Wait()
	select {
	case <-changed:
	default:
		t.Error("the watch of a run that has changed is silent")
	}
	if run.Counts().Succeeded != 0 || s.Snapshot().Run("r0").Counts().Succeeded != 200 {
		t.Error("a change shows where it should not, or does not where it should")
	}
}

func TestAbortLeavesNothing(t *testing.T) {
	s := filled(t, &state.MemoryChunks{}, 1)
	x := s.Begin(50, 5000)
	x.Run("r0").Change().Status = sheaf.RunFailed
	x.PutNode(&state.Node{Node: sheaf.Node{ID: "n2"}})
	x.Abort()
	snap := s.Snapshot()
	if snap.Run("r0").Status != sheaf.RunRunning || snap.Node("n2") != nil {
		t.Error("an aborted change shows")
	}
	if snap.Index() != 50 || snap.TimeMs() != 5000 {
		t.Errorf("index %d and time %d of a refused entry do not count", snap.Index(), snap.TimeMs())
	}
}

func TestLiveRunsAndRunsOfAJob(t *testing.T) {
	s := filled(t, &state.MemoryChunks{}, 3)
	x := s.Begin(9, 0)
	x.Run("r1").Change().Status = sheaf.RunSucceeded
	x.Commit()
	var live, all []sheaf.RunID
	for r := range s.Snapshot().LiveRuns() {
		live = append(live, r.ID)
	}
	for r := range s.Snapshot().RunsOfJob("default", "j") {
		all = append(all, r.ID)
	}
	if !slices.Equal(live, []sheaf.RunID{"r0", "r2"}) || !slices.Equal(all, []sheaf.RunID{"r0", "r1", "r2"}) {
		t.Errorf("live are %v of %v", live, all)
	}
	if r := s.Snapshot().LatestRun("default", "j"); r == nil || r.ID != "r2" {
		t.Errorf("the latest is %v", r)
	}
	if r := s.Snapshot().LatestRun("default", "jo"); r != nil {
		t.Errorf("another job's latest is %v", r.ID)
	}
}
