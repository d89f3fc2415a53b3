package command

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/sheaf-run/agent/drivers/builtin"
	"github.com/sheaf-run/agent/internal/leaktest"
	"github.com/sheaf-run/agent/jobspec"
)

// TestMain makes the test binary what the agent's is: driver plugin and jobspec
// reader too. Nothing may be left running in it.
func TestMain(m *testing.M) {
	if jobspec.IsChild(os.Args) {
		os.Exit(jobspec.ChildMain(os.Args, os.Stdin, os.Stdout))
	}
	if handled, code := builtin.PluginMain(os.Args[1:]); handled {
		os.Exit(code)
	}
	// memberlist waits for its last probe by TCP beyond Shutdown.
	leaktest.Main(m, goleak.IgnoreAnyFunction("github.com/hashicorp/memberlist.(*Memberlist).probeNode"))
}

// startDev runs `agent dev` with these flags until the test ends, and points the environment at it.
func startDev(t *testing.T, flags ...string) {
	t.Helper()
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	ctx, stop := context.WithCancel(context.Background())
	said, says := io.Pipe()
	e := &env{version: "test", in: strings.NewReader(""), out: io.Discard, err: says, noColor: true}
	root := e.root()
	root.SetArgs(doubleDashes(append([]string{"dev", "-http-port", "0", "-rpc-port", "0", "-gossip-port", "0", "-log-level", "error"}, flags...)))
	done := make(chan error, 1)
	go func() {
		done <- root.ExecuteContext(ctx)
		says.Close()
	}()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("agent dev ended with %v", err)
		}
	})
	lines := bufio.NewScanner(said)
	for lines.Scan() {
		if address, ok := strings.CutPrefix(lines.Text(), "ready at "); ok {
			t.Setenv("SHEAF_ADDR", address)
			go io.Copy(io.Discard, said)
			return
		}
	}
	t.Fatalf("agent dev never became ready")
}

// ended is what a command line did.
type ended struct {
	out, err string
	code     int
}

// command runs a command line as Main would.
func command(ctx context.Context, args ...string) ended {
	var out, errs bytes.Buffer
	e := &env{version: "test", in: strings.NewReader(""), out: &out, err: &errs, noColor: true}
	root := e.root()
	root.SetArgs(doubleDashes(args))
	root.SetOut(&out)
	root.SetErr(&errs)
	code := 0
	if err := root.ExecuteContext(ctx); err != nil {
		code = exitCode(err)
		errs.WriteString(e.describe(err))
	}
	return ended{out.String(), errs.String(), code}
}

func write(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestACluster walks through what a person does with an agent, in one agent's life.
func TestACluster(t *testing.T) {
	startDev(t, "-clients", "2")
	ctx := context.Background()
	dir := t.TempDir()
	for name, text := range map[string]string{"a.txt": "one\n", "b.txt": "two\n", "c.md": "three\n"} {
		write(t, filepath.Join(dir, name), text)
	}
	texts := "  input \"texts\" {\n    source = \"file://" + dir + "\"\n    mount  = \"/texts\"\n  }\n"
	task := "  task \"t\" {\n    driver = \"exec\"\n    config {\n      command = \"sh\"\n      args = [\"-c\", \"cat $SHEAF_INPUT_TEXTS/*.txt > $SHEAF_OUTPUT_ALL/all.txt\"]\n    }\n  }\n"
	job := write(t, filepath.Join(dir, "job.hcl"), "job \"words\" {\n"+texts+"  split {\n    glob = \"/*.txt\"\n  }\n"+task+"  output \"all\" {\n    path  = \"/all\"\n    merge = \"concat\"\n  }\n}\n")
	none := write(t, filepath.Join(dir, "none.hcl"), "job \"none\" {\n"+texts+"  split {\n    glob = \"/*.nope\"\n  }\n"+strings.Replace(task, "> $SHEAF_OUTPUT_ALL/all.txt", "", 1)+"}\n")
	folder := filepath.Join(dir, "result")
	t.Chdir(filepath.Dir(dir))
	relative := "./" + filepath.Base(dir) + ":/in"

	for _, c := range []struct {
		name string
		args []string
		code int
		out  string // stands in stdout
		err  string // stands in stderr
	}{
		{"preview", []string{"input", "preview", "-json", job}, 0, `{"index":1,"key":"","bytes":4,"atoms":[{"path":"/texts/b.txt","size":4,"dir":false,"input":"texts"}]}`, ""},
		{"preview of nothing", []string{"input", "preview", "-json", none}, 2, "", `glob "/*.nope" below "/texts" matched nothing`},
		{"plan", []string{"job", "plan", job}, 0, `would run 2 partitions`, ""},
		{"plan of nothing", []string{"job", "plan", none}, 2, "", "matched nothing"},
		{"run", []string{"job", "run", "-id", "first", "-o", folder, job}, 0, "", "first succeeded"},
		{"the same again is the same run", []string{"job", "run", "-id", "first", job, "-q"}, 0, "first\n", ""},
		{"another under its ID", []string{"job", "run", "-id", "first", none}, 2, "", "first exists with another job"},
		{"nothing matched", []string{"job", "run", none}, 3, "", `files such as "/texts/a.txt"`},
		{"one line, relative", []string{"job", "run", "-input", relative, "-glob", "/*.txt", "-name", "line", "-exec", "--", "true"}, 0, "", "line-"},
		{"its partitions", []string{"partition", "list", "line", "-q"}, 0, "0\n1\n", ""},
		{"flags behind arguments", []string{"job", "status", "words", "-t", "{{.status}} {{.partitions.succeeded}}"}, 0, "succeeded 2\n", ""},
		{"a prefix", []string{"job", "status", "fir", "-q"}, 0, "first\n", ""},
		{"results", []string{"job", "results", "first", "-q"}, 0, "all/all.txt\n", ""},
		{"results of some", []string{"job", "results", "first", "-partition", "1", "-o", folder + "-1"}, 0, "", "1 file"},
		{"results of none", []string{"job", "results", "first", "-partition", "2", "-o", folder + "-2"}, 2, "", "no partition 2"},
		{"a failure", []string{"job", "run", "-exec", "-name", "flaky", "-count", "3", "--", "sh", "-c", "[ $SHEAF_PARTITION_INDEX != 1 ] || { echo 'no \x1bluck' >&2; exit 9; }"}, 3, "", `    | no \x1bluck`},
		{"its log", []string{"job", "logs", "last", "-failed"}, 0, `| no \x1bluck`, ""},
		{"a log that is not there", []string{"job", "logs", "last", "-partition", "7"}, 2, "", "no partition 7"},
		{"a log as JSON", []string{"job", "logs", "last", "-failed", "-json"}, 0, `{"partition":1,"attempt":3,"node":"`, ""},
		{"an empty log", []string{"job", "logs", "last", "-partition", "0"}, 0, "", "nothing on stdout"},
		{"why", []string{"job", "explain", "last/1"}, 0, "exit code 9", ""},
		{"a list", []string{"job", "list", "-filter", `status == "failed"`, "-t", "{{len .}}"}, 0, "2\n", ""},
		{"a page", []string{"job", "list", "-per-page", "1", "-json"}, 0, `"id": "first"`, "-page-token"},
		{"a filter that is none", []string{"job", "list", "-filter", "status =="}, 2, "", "malformed filter"},
		{"partitions in a state", []string{"partition", "list", "flaky", "-state", "failed", "-q"}, 0, "1\n", ""},
		{"partitions by a filter", []string{"partition", "list", "flaky", "-filter", "exit_code == 9", "-q"}, 0, "1\n", ""},
		{"no such state", []string{"partition", "list", "flaky", "-state", "x"}, 2, "", "unknown partition state"},
		{"no such order", []string{"partition", "list", "flaky", "-sort", "x"}, 2, "", `-sort "x" is unknown`},
		{"retry of nothing", []string{"job", "retry", "first"}, 2, "", "none of its partitions has failed"},
		{"wait", []string{"job", "wait", "first"}, 0, "", "succeeded"},
		{"stop of what is over", []string{"job", "stop", "first"}, 0, "first succeeded", ""},
		{"inspect", []string{"job", "inspect", "first", "-t", "{{.job.name}}"}, 0, "words\n", ""},
		{"time out", []string{"job", "run", "-exec", "-id", "long", "-timeout", "50ms", "--", "sleep", "60"}, 124, "", "long goes on."},
		{"stop", []string{"job", "stop", "long"}, 0, "long cancelled", ""},
		{"wait for what was cancelled", []string{"job", "wait", "long"}, 4, "", "long cancelled"},
		{"detach", []string{"job", "run", "-detach", "-id", "later", "-exec", "--", "true"}, 0, "later\n", "follow it"},
		{"wait for it", []string{"job", "wait", "last", "-q"}, 0, "later\n", ""},
		{"a run to follow", []string{"job", "run", "-detach", "-id", "talks", "-exec", "-count", "2", "--", "sh", "-c", "echo begun; sleep 0.2; echo over"}, 0, "talks\n", ""},
		{"follow it", []string{"job", "logs", "-f", "talks"}, 0, "| over\n", ""},
		{"delete", []string{"job", "delete", "later"}, 0, "later deleted\n", ""},
		{"what was deleted", []string{"job", "status", "later"}, 2, "", `no run or job is called "later"`},
		{"nodes", []string{"node", "list", "-t", "{{len .}}"}, 0, "2\n", ""},
		{"a node", []string{"node", "status", "dev-2"}, 0, "driver mock", ""},
		{"members", []string{"server", "members", "-q"}, 0, "dev\n", ""},
		{"version", []string{"version", "-t", "{{.client}} {{.agent}}"}, 0, "test test\n", ""},
	} {
		got := command(ctx, c.args...)
		if got.code != c.code || !strings.Contains(got.out, c.out) || !strings.Contains(got.err, c.err) {
			t.Errorf("%s: exit %d, want %d\nstdout: %s\n  want: %s\nstderr: %s\n  want: %s", c.name, got.code, c.code, got.out, c.out, got.err, c.err)
		}
	}

	if b, err := os.ReadFile(filepath.Join(folder, "outputs/all/all.txt")); err != nil || string(b) != "one\ntwo\n" {
		t.Errorf("merged output is %q, %v", b, err)
	}
	testResume(t, folder)
	testStatusShape(t)
}

// testResume: a result that is there in part is completed.
func testResume(t *testing.T, folder string) {
	all := filepath.Join(folder, "outputs/all/all.txt")
	write(t, all, "on")
	if got := command(context.Background(), "job", "results", "first", "-o", folder); got.code != 0 {
		t.Fatalf("exit %d: %s", got.code, got.err)
	}
	if b, err := os.ReadFile(all); err != nil || string(b) != "one\ntwo\n" {
		t.Errorf("resumed output is %q, %v", b, err)
	}
}

// testStatusShape holds the JSON of a status to what programs rely on.
func testStatusShape(t *testing.T) {
	got := command(context.Background(), "job", "status", "-json", "flaky")
	var s struct {
		ID, Name, Status, Error string
		Partitions              map[string]int
	}
	if err := json.Unmarshal([]byte(got.out), &s); err != nil {
		t.Fatalf("%v in %s", err, got.out)
	}
	if s.Name != "flaky" || s.Status != "failed" || !strings.HasPrefix(s.ID, "flaky-") || !strings.Contains(s.Error, "exit code 9") {
		t.Errorf("got %+v", s)
	}
	for state, want := range map[string]int{"total": 3, "succeeded": 2, "failed": 1, "pending": 0, "assigned": 0, "running": 0, "cancelled": 0, "reused": 0} {
		if n, ok := s.Partitions[state]; !ok || n != want {
			t.Errorf("%d partitions are %s, want %d (there: %v)", n, state, want, ok)
		}
	}
}

// TestDevTakesUpItsDataDir: what an agent did is there when it starts again in the same place, given as people give it.
func TestDevTakesUpItsDataDir(t *testing.T) {
	t.Chdir(t.TempDir())
	for life := range 2 {
		t.Run(fmt.Sprint("life ", life+1), func(t *testing.T) {
			startDev(t, "-data-dir", "state")
			if life == 0 {
				if got := command(context.Background(), "job", "run", "-id", "kept", "-exec", "--", "echo", "said"); got.code != 0 {
					t.Fatalf("exit %d: %s", got.code, got.err)
				}
			}
			if got := command(context.Background(), "job", "status", "kept"); !strings.HasPrefix(got.out, "kept succeeded") {
				t.Errorf("got %s%s", got.out, got.err)
			}
			if got := command(context.Background(), "job", "logs", "kept"); !strings.HasSuffix(got.out, "| said\n") {
				t.Errorf("got %s%s", got.out, got.err)
			}
		})
	}
}

// TestDetachAndInterrupt: Ctrl-C leaves a run of a cluster and says how to come back to it, and ends a local one.
func TestDetachAndInterrupt(t *testing.T) {
	for name, c := range map[string]struct {
		local bool
		code  int
		says  string
	}{"a cluster's": {false, exitInterrupts, "come back:  agent job status -watch gone"}, "a local": {true, ExitCancelled, "the run was stopped"}} {
		t.Run(name, func(t *testing.T) {
			args := []string{"job", "run", "-exec", "-id", "gone", "--", "sleep", "60"}
			if c.local {
				t.Setenv("XDG_CONFIG_HOME", t.TempDir())
				args = append(args[:2:2], append([]string{"-local"}, args[2:]...)...)
			} else {
				startDev(t)
			}
			ctx, interrupt := context.WithCancel(context.Background())
			defer interrupt()
			e := &env{in: strings.NewReader(""), out: io.Discard, noColor: true}
			var errs bytes.Buffer
			e.err = writes(func(p []byte) {
				if errs.Write(p); strings.Contains(string(p), "gone  ") {
					interrupt()
				}
			})
			root := e.root()
			root.SetArgs(doubleDashes(args))
			err := root.ExecuteContext(ctx)
			if err == nil || exitCode(err) != c.code {
				t.Errorf("ended with %v, want exit %d", err, c.code)
			} else if text := errs.String() + err.Error(); !strings.Contains(text, c.says) {
				t.Errorf("said %s, want %s", text, c.says)
			}
			if !c.local {
				if got := command(context.Background(), "job", "stop", "gone"); got.code != 0 || !strings.Contains(got.out, "gone cancelled") {
					t.Errorf("it did not go on: %+v", got)
				}
			}
		})
	}
}

type writes func(p []byte)

func (w writes) Write(p []byte) (int, error) { w(p); return len(p), nil }

// TestLocal: one command without a cluster runs a job, and says what is in the way of one that cannot be placed.
func TestLocal(t *testing.T) {
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	got := command(context.Background(), "job", "run", "-local", "-exec", "-count", "3", "--", "sh", "-c", "echo Partition=$SHEAF_PARTITION_INDEX")
	if got.code != 0 || got.out != "Partition=0\nPartition=1\nPartition=2\n" {
		t.Errorf("exit %d, stdout %q, stderr %s", got.code, got.out, got.err)
	}
	huge := write(t, filepath.Join(t.TempDir(), "huge.hcl"), "job \"huge\" {\n  task \"t\" {\n    driver = \"exec\"\n    config {\n      command = \"true\"\n    }\n    resources {\n      memory = \"60TiB\"\n    }\n  }\n}\n")
	if got := command(context.Background(), "job", "run", "-local", huge); got.code != ExitUnplaced || !strings.Contains(got.err, "memory") {
		t.Errorf("exit %d, stderr %s", got.code, got.err)
	}
}
