package mock_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/sheaf-run/agent/drivers"
	"github.com/sheaf-run/agent/drivers/driverpb"
	"github.com/sheaf-run/agent/drivers/drivertest"
	"github.com/sheaf-run/agent/drivers/mock"
	"github.com/sheaf-run/agent/sheaf"
)

func TestMain(m *testing.M) {
	drivertest.Main(m, "mock", func() drivers.Driver { return mock.New() })
}

// config translates the suite's verbs into what the mock does.
func config(t testing.TB, args ...string) []byte {
	c := map[string]any{}
	switch args[0] {
	case "exit":
		code, err := strconv.Atoi(args[1])
		if err != nil {
			t.Fatal(err)
		}
		c["exit_code"] = code
	case "print":
		c["stdout"], c["stderr"] = args[1], args[2]
	case "sleep":
		c["duration"] = args[1] + "s"
	default:
		t.Fatalf("the mock has no verb %q", args[0])
	}
	data, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestConformance(t *testing.T) {
	drivertest.Run(t, drivertest.Subject{
		New:    func(t *testing.T) drivers.Driver { return drivertest.Hosted(t, "mock") },
		Config: func(t *testing.T, args ...string) []byte { return config(t, args...) },
		Bad: map[string][]byte{
			"negative duration": []byte(`{"duration":"-1s"}`),
			"no unit":           []byte(`{"duration":"5"}`),
			"exit code 256":     []byte(`{"exit_code":256}`),
			"half an exit code": []byte(`{"exit_code":1.5}`),
			"distribution":      []byte(`{"duration_dist":"normal"}`),
		},
		Short: 10000,
	})
}

func TestWhichTriesFail(t *testing.T) {
	s := drivertest.Open(t, mock.New())
	tests := []struct {
		config    string
		partition int
		attempt   uint32
		exit      int32
	}{
		{`{"fail_times":2}`, 0, 1, 1},
		{`{"fail_times":2}`, 0, 2, 1},
		{`{"fail_times":2}`, 0, 3, 0},
		{`{"fail_partitions":["4"]}`, 4, 9, 1},
		{`{"fail_partitions":["4"]}`, 3, 1, 0},
		{`{"fail_partitions":["4"],"fail_times":1}`, 4, 1, 1},
		{`{"fail_partitions":["4"],"fail_times":1}`, 4, 2, 0},
		{`{"fail_partitions":["4"],"fail_times":1}`, 5, 1, 0},
	}
	for i, tt := range tests {
		id := string(sheaf.NewExecutionID(sheaf.RunID(fmt.Sprintf("run.%d", i)), tt.partition, tt.attempt))
		x := s.Run(&driverpb.Start{Execution: id, ConfigJson: []byte(tt.config)}).Exited
		if x.GetExitCode() != tt.exit {
			t.Errorf("%s partition %d attempt %d: %v, want exit code %d", tt.config, tt.partition, tt.attempt, x, tt.exit)
		}
	}
}

func TestOutputsAreWrittenIntoTheirMounts(t *testing.T) {
	dir := t.TempDir()
	s := drivertest.Open(t, mock.New())
	start := &driverpb.Start{
		Execution: "r.0.1", ConfigJson: []byte(`{"outputs":{"/out/a/b.txt":"made"}}`),
		Mounts: []*driverpb.Mount{{Source: dir, Target: "/out"}},
	}
	if x := s.Run(start).Exited; x.GetExitCode() != 0 {
		t.Fatalf("exited = %v", x)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "a/b.txt")); string(got) != "made" {
		t.Errorf("the output holds %q, %v", got, err)
	}
	start = &driverpb.Start{Execution: "r.1.1", ConfigJson: start.ConfigJson}
	if x := s.Run(start).Exited; x.GetExitCode() != 1 || x.GetError() == "" {
		t.Errorf("an output outside every mount: %v, want a failure that says so", x)
	}
}

// BenchmarkThroughPlugin is what a plugin's stream carries, both ways.
func BenchmarkThroughPlugin(b *testing.B) {
	h := drivertest.Hosted(b, "mock")
	benchmark(b, h)
}

// BenchmarkInProcess is the mock alone.
func BenchmarkInProcess(b *testing.B) { benchmark(b, mock.New()) }

func benchmark(b *testing.B, d drivers.Driver) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	resp, err := d.Prepare(ctx, &driverpb.PrepareRequest{ConfigJson: []byte(`{}`)})
	if err != nil {
		b.Fatal(err)
	}
	commands, events := make(chan *driverpb.Command, 256), make(chan *driverpb.Event, 256)
	returned := make(chan error, 1)
	go func() { returned <- d.Execute(ctx, commands, events) }()
	b.ReportAllocs()
	b.ResetTimer()
	go func() {
		for i := range b.N {
			commands <- &driverpb.Command{Body: &driverpb.Command_Start{Start: &driverpb.Start{
				Execution: string(sheaf.NewExecutionID("run", i, 1)), Handle: resp.GetHandle(), ConfigJson: []byte(`{}`),
				Env: []string{"SHEAF_PARTITION_INDEX=1", "SHEAF_JOB_ID=run"},
			}}}
		}
	}()
	for range b.N {
		<-events
	}
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "executions/s")
	close(commands)
	if err := <-returned; err != nil {
		b.Fatal(err)
	}
}
