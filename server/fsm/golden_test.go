package fsm_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/server/fsm"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/sheaf"
)

// firstScript is a short life of a cluster with every kind of command of the first release's log in it.
var firstScript = []string{
	"bootstrap c1 here", "node n1 boot=a", "node n2 boot=a", "eligible n2 false", "eligible n2 true",
	"job r count=6 attempts=2 tolerate=1 outputs", "job s split", "job slow count=1 timeout=1s", "job gone count=1",
	"image r sha256:1", "place r n1 0-3", "place r n2 4-5", "place r n2 0 backup", "split s n1", "place slow n1 0", "cancel gone", "delete gone", "job gone2 count=1", "cancel gone2", "delete gone2", "reap gone",
	"chunk s n1 1 0 0 2", "chunk s n1 1 1 2 1", "seal s n1 1 2 3", "place s n1 0-2", "result s n1 0@1=ok 1@1=exit:3", "prepare-failed s n1",
	"result r n1 0@1=ok 1@1=exit:5 2@1=lost", "free n1 r 3@1", "place r n2 1-3", "result r n2 1@2=ok 2@2=ok 3@2=exit:4 4@1=ok",
	"lost n2", "node n2 boot=b", "time +2s", "place r n1 3,5", "result r n1 3@3=exit:4 5@2=ok", "invalidate r 0@1", "place r n1 0", "result r n1 0@3=ok",
	"merge r n1", "sealed r n1 1 x", "retry r 3", "place r n1 3 ",
}

// laterScript goes on with the kinds that came since. Add lines at its end.
var laterScript = []string{
	"job c count=9", "change c held=true priority=70 parallelism=2",
	"secret put team db sealed-1 train-* eval", "secret grant team db eval", "job user namespace=team name=eval secret=db count=1",
	"autopilot 3",
	"drain n1 60s", "move r n1 n2 0@3 5@2",
	"namespace put team the team's", "acl policy reader namespace:*:read", "acl bootstrap first", "acl token second reader +1h", "acl token third reader +1ms",
	"node n3 boot=a", "job a reuse split rerun", "split a n3", "chunk a n3 1 0 0 2", "seal a n3 1 1 2", "place a n3 0-1", "result a n3 0@1=ok 1@1=ok",
	"job b reuse split", "split b n3", "chunk b n3 1 0 0 2", "seal b n3 1 1 2", "adopt b 1 a:0-1=0",
	"job k count=3 outputs", "place k n3 0-2", "result k n3 0@1=ok 1@1=ok", "conflict k out same.txt 0 1",
}

// runGolden runs a script and gives its log.
func runGolden(t *testing.T, lines ...string) (*script, [][]byte) {
	s := newScript(t)
	var log [][]byte
	s.entry = func(b []byte) { log = append(log, b) }
	for _, line := range lines {
		s.ms += 10
		s.line(line)
	}
	return s, log
}

func golden(t *testing.T, name string, got []byte) []byte {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return want
}

// TestCommandBytes: an entry of an old log means for ever what it meant. The
// bytes of every kind of command stand in testdata; they may be added to, never changed.
func TestCommandBytes(t *testing.T) {
	_, log := runGolden(t, append(slices.Clone(firstScript), laterScript...)...)
	first := map[string]string{}
	var order []string
	for _, b := range log {
		k := fsm.KindName(b)
		if _, ok := first[k]; !ok {
			order = append(order, k)
			first[k] = hex.EncodeToString(b)
		}
	}
	var text strings.Builder
	for _, k := range order {
		fmt.Fprintf(&text, "%s %s\n", k, first[k])
	}
	if want := golden(t, "commands.txt", []byte(text.String())); text.String() != string(want) {
		t.Errorf("commands are encoded otherwise now:\n%s", text.String())
	}
	for _, k := range fsm.KindNames() {
		if first[k] == "" {
			t.Errorf("the golden script has no %s", k)
		}
	}
	if n := len(fsm.KindNames()); n >= 30 {
		t.Errorf("%d kinds of command", n)
	}
}

// TestGoldenLogReplays applies the log of this release's first day and holds
// the state against its digest; a snapshot of that day leads to the same.
func TestGoldenLogReplays(t *testing.T) {
	s, log := runGolden(t, firstScript...)
	var file bytes.Buffer
	for _, b := range log {
		fmt.Fprintln(&file, hex.EncodeToString(b))
	}
	var image bytes.Buffer
	if _, err := s.m.Image().WriteTo(&image); err != nil {
		t.Fatal(err)
	}
	oldLog := golden(t, "log.txt", file.Bytes())
	oldImage := golden(t, "snapshot.bin", image.Bytes())
	digest := strings.TrimSpace(string(golden(t, "digest.txt", []byte(s.snap().Digest()+"\n"))))

	m := fsm.New(state.New(&state.MemoryChunks{}))
	for i, line := range strings.Fields(string(oldLog)) {
		b, err := hex.DecodeString(line)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := m.Apply(uint64(i+1), b); err != nil {
			t.Fatal(err)
		}
	}
	if got := m.Store().Snapshot().Digest(); got != digest {
		t.Errorf("the log leads to %s, not to %s", got, digest)
	}
	restored := fsm.New(state.New(&state.MemoryChunks{}))
	if err := restored.Restore(bytes.NewReader(oldImage)); err != nil {
		t.Fatal(err)
	}
	if got := restored.Store().Snapshot().Digest(); got != digest {
		t.Errorf("the snapshot holds %s, not %s", got, digest)
	}
	var again bytes.Buffer
	if _, err := restored.Image().WriteTo(&again); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(again.Bytes(), image.Bytes()) {
		t.Error("what was restored is written otherwise")
	}
	run := restored.Store().Snapshot().Run("s")
	if b, err := restored.Store().Chunk(run, 1); err != nil || string(b) != "chunk 1" {
		t.Errorf("chunk 1 of the manifest is %q, %v", b, err)
	}
}

// TestUnknownCommandsHalt: a command, or a field, that a newer version wrote is
// never skipped, and nothing after it is applied.
func TestUnknownCommandsHalt(t *testing.T) {
	known, err := fsm.Encode(&fsm.Command{TimeMs: 1, Body: &fsm.Command_Bootstrap{Bootstrap: &fsm.Bootstrap{ClusterId: "c"}}})
	if err != nil {
		t.Fatal(err)
	}
	field := func(b []byte, number protowire.Number, value []byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(bytes.Clone(b), number, protowire.BytesType), value)
	}
	results := field(nil, 1, field(nil, 99, []byte("x")))
	for name, b := range map[string][]byte{
		"another kind":                 field([]byte{8, 1}, 29, nil),
		"a further field":              field(known, 77, []byte("x")),
		"a further field of the body":  field([]byte{8, 1}, 2, field(nil, 9, []byte("x"))),
		"a further field further down": field([]byte{8, 1}, 10, results),
		"no kind":                      {8, 1},
		"bytes that are no command":    {0xff, 0xff},
		"nothing":                      nil,
	} {
		m := fsm.New(state.New(&state.MemoryChunks{}))
		_, err := m.Apply(1, b)
		if err == nil {
			t.Errorf("%s is applied", name)
			continue
		}
		if name != "bytes that are no command" && !errors.Is(err, fsm.ErrUnknownCommand) {
			t.Errorf("%s: %v", name, err)
		}
		if _, again := m.Apply(2, known); again == nil {
			t.Errorf("%s: the machine goes on behind it", name)
		}
		if m.Store().Snapshot().Index() != 0 || m.Store().Snapshot().Cluster().ID != "" {
			t.Errorf("%s: the state has changed", name)
		}
	}
}

func TestCommandsAreBounded(t *testing.T) {
	big := fsm.Command{Body: &fsm.Command_CommitPartitions{CommitPartitions: &fsm.CommitPartitions{Results: []*wire.Results{{Run: "r", Digest: make([]byte, fsm.MaxCommand)}}}}}
	if _, err := fsm.Encode(&big); sheaf.ClassOf(err) != sheaf.TooLarge {
		t.Errorf("64 KiB and more are taken: %v", err)
	}
	job := func(n int) error {
		c := fsm.Command{Body: &fsm.Command_RegisterJob{RegisterJob: &fsm.RegisterJob{Run: "r", JobJson: make([]byte, n)}}}
		_, err := fsm.Encode(&c)
		return err
	}
	if err := job(fsm.MaxRegisterJob - 100); err != nil {
		t.Error(err)
	}
	if err := job(fsm.MaxRegisterJob); sheaf.ClassOf(err) != sheaf.TooLarge {
		t.Errorf("a job of 1 MiB and more is taken: %v", err)
	}
}
