package drivertest

import (
	"context"
	"log/slog"
	"os"
	"strings"
	"testing"

	"github.com/sheaf-run/agent/drivers"
	"github.com/sheaf-run/agent/drivers/plugin"
)

// Main is what a driver's TestMain calls: it runs the tests, or, when the test
// binary was started by [Hosted] for this name, serves the driver and nothing else.
func Main(m *testing.M, name string, driver func() drivers.Driver) {
	if len(os.Args) == 3 && os.Args[1] == "plugin" && os.Args[2] == name {
		plugin.Serve(name, driver())
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// Hosted is the driver that [Main] serves, in a process of its own that ends
// with the test. env are further NAME=value for it.
func Hosted(t testing.TB, name string, env ...string) *plugin.Host {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	h := plugin.NewHost(plugin.Config{
		Name: name, Command: []string{self, "plugin", name}, Env: env, SocketDir: t.TempDir(),
		Log: slog.New(slog.NewTextHandler(testLog{t}, &slog.HandlerOptions{Level: slog.LevelInfo})),
	})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = h.Run(ctx) // its error is ctx's
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	return h
}

// testLog shows a plugin's log with the test that it belongs to.
type testLog struct{ t testing.TB }

func (l testLog) Write(b []byte) (int, error) {
	l.t.Log(strings.TrimSuffix(string(b), "\n"))
	return len(b), nil
}
