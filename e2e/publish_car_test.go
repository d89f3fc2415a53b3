package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sheaf-run/agent/api"
)

// carJob makes files and publishes them to CAR files in a directory.
func carJob(t *testing.T, name, script, to, blocks string) string {
	return jobspec(t, shell(name, 3, script, fmt.Sprintf(`
  output "out" {
    path = "/out"
  }
  publish {
    to = "car://%s"
  }
  %s`, to, blocks)))
}

// TestPublishAsCar: a result that is published as a CAR file has the CID of its files, each time the same, and is read
// from the file and by its CID from a gateway like any other input.
func TestPublishAsCar(t *testing.T) {
	to := filepath.Join(t.TempDir(), "cars")
	if err := os.Mkdir(to, 0o755); err != nil {
		t.Fatal(err)
	}
	car := filepath.Join(to, "one", "1", "result.car")
	a := startReader(t, fmt.Sprintf(`  file_root %q {
    writable = true
  }
  ipfs {
    gateways = [%q]
  }`, to, blockGateway(t, car)))
	script := `mkdir $SHEAF_OUTPUT_OUT/d; for i in 0 1 2 3 4; do echo $SHEAF_PARTITION_INDEX-$i > "$SHEAF_OUTPUT_OUT/d/part $SHEAF_PARTITION_INDEX$i.txt"; done; : > $SHEAF_OUTPUT_OUT/empty-$SHEAF_PARTITION_INDEX`
	spec, out := carJob(t, "make", script, to, ""), filepath.Join(t.TempDir(), "result")
	if r := a.cli("job", "plan", carJob(t, "make", script, "/elsewhere", "")); r.code != 5 || !strings.Contains(r.stdout+r.stderr, "may not write to car:///elsewhere") {
		t.Errorf("a place that nobody may write to: exit %d, %s%s", r.code, r.stdout, r.stderr)
	}
	r := a.cli("job", "run", "-id", "one", "-o", out, spec)
	if r.code != 0 || !strings.Contains(r.stderr, "published: car://"+car) {
		t.Fatalf("exit %d, without saying where the CAR file is:\n%s", r.code, r.stderr)
	}
	cid := strings.TrimSpace(a.ok("input", "pack", filepath.Join(out, "outputs"), "-o", filepath.Join(t.TempDir(), "x.car")))
	if got := a.status("one"); got.PublishedCID != cid || got.Published != "car://"+car || !strings.Contains(r.stderr, "cid: "+cid) {
		t.Errorf("the CID of the files is %s, and the run's %+v\n%s", cid, got, r.stderr)
	}
	a.ok("job", "run", "-id", "two", spec)
	if got := a.status("two").PublishedCID; got != cid {
		t.Errorf("the same job has then the CID %s, not %s", got, cid)
	}
	a.ok("job", "delete", "one")
	checkCar(t, to, "one", cid)
	checkCar(t, to, "two", cid)
	reads := func(name, source string) string {
		return jobspec(t, strings.ReplaceAll(shell(name, 1, "cd /in; find . -type f | sort | while read -r f; do echo \"$f:\"; cat \"$f\"; done", fmt.Sprintf(`
  input "in" {
    source = %q
    mount  = "/in"
  }`, source)), "  count = 1\n", ""))
	}
	var want string
	for i, source := range []string{"car://" + car + "#/out", "car://" + car + "#" + cid + "/out", "ipfs://" + cid + "/out"} {
		dir := filepath.Join(t.TempDir(), "read")
		a.ok("job", "run", "-o", dir, reads(fmt.Sprint("read-", i), source))
		got := read(t, dir, "stdout")
		if want == "" {
			want = got
		}
		if got != want || strings.Count(got, "\n") != 3*(5*2+1) || !strings.Contains(got, "./d/part 24.txt:\n2-4\n") {
			t.Errorf("%s: the task reads %q", source, got)
		}
	}
}

// checkCar holds what a run has published, and that nothing else of it lies there.
func checkCar(t *testing.T, dir, run, cid string) {
	t.Helper()
	var m struct {
		Run, List, Car, Root string
		ListSHA256           string `json:"list_sha256"`
	}
	if err := json.Unmarshal([]byte(read(t, dir, run, "manifest.json")), &m); err != nil {
		t.Fatal(err)
	}
	if list := read(t, dir, run, m.List); m.Run != run || m.Root != cid || digestOf(list) != m.ListSHA256 || strings.Count(list, `"cid":"ba`) != strings.Count(list, "\n") {
		t.Errorf("the manifest is %+v for %s, and the list:\n%s", m, cid, list)
	}
	folder := filepath.Dir(m.List)
	if got, want := filesIn(t, filepath.Join(dir, run)), []string{m.List, m.Car, folder + "/result.json", "manifest.json"}; !slices.Equal(got, want) {
		t.Errorf("of %s there is %q, not %q", run, got, want)
	}
}

// TestCarPublisherIsKilled: a client is killed while it writes a CAR file. No file stands there to be taken for a result;
// another client writes the whole, and nothing of the first one's stays.
func TestCarPublisherIsKilled(t *testing.T) {
	to, gossip := t.TempDir(), freePort(t)
	worker := startDaemon(t, "name = \"worker\"\n"+portsBlock(t, gossip)+`server {
  enabled = true
  heartbeat {
    lease   = "5s"
    grace   = "2s"
    outputs = "1s"
  }
}
client {
  enabled = true
  drivers = ["exec"]
}`)
	publisher := func(name string) *agent {
		return startDaemon(t, fmt.Sprintf("name = %q\njoin = [\"127.0.0.1:%s\"]\n", name, gossip)+portsBlock(t, freePort(t))+fmt.Sprintf(`client {
  enabled = true
  drivers = ["wasm"]
  file_root %q {
    shared   = true
    writable = true
  }
}`, to))
	}
	one, c := publisher("one"), worker.client()
	await(t, "both clients are ready", func() bool {
		nodes, _, err := c.Nodes(t.Context(), api.Read{})
		return err == nil && len(nodes) == 2
	})
	script := `mkdir $SHEAF_OUTPUT_OUT/$SHEAF_PARTITION_INDEX; head -c 20000000 /dev/zero > $SHEAF_OUTPUT_OUT/$SHEAF_PARTITION_INDEX/zeros`
	run := ""
	for try := 0; run == ""; try++ { // until it was killed while it wrote
		if try == 10 {
			t.Fatal("the publisher ended before it was killed, each time")
		}
		run = fmt.Sprint("killed-", try)
		worker.ok("job", "run", "-detach", "-id", run, carJob(t, "killed", script, to, ""))
		part := filepath.Join(to, run, "1", ".result.car.part")
		await(t, "a CAR file is being written", func() bool {
			for range 1000 { // as closely as can be: it takes a moment
				_, begun := os.Stat(part)
				_, over := os.Stat(filepath.Join(to, run, "manifest.json"))
				if begun == nil || over == nil {
					return true
				}
			}
			return false
		})
		one.kill()
		if left := filesIn(t, filepath.Join(to, run)); !slices.Equal(left, []string{"1/.result.car.part"}) {
			t.Logf("too late: there is %q", left)
			run = ""
			one.start()
		}
	}
	began := time.Now()
	publisher("two")
	worker.ok("job", "wait", run)
	t.Logf("published by another after %s", time.Since(began).Round(100*time.Millisecond))
	out := filepath.Join(t.TempDir(), "result")
	worker.ok("job", "results", "-o", out, run)
	cid := strings.TrimSpace(worker.ok("input", "pack", filepath.Join(out, "outputs"), "-o", filepath.Join(t.TempDir(), "x.car")))
	if got := worker.status(run).PublishedCID; got != cid {
		t.Errorf("the CID is %s, and that of the files %s", got, cid)
	}
	checkCar(t, to, run, cid)
}
