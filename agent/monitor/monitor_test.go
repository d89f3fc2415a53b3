package monitor

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/sheaf-run/agent/api"
)

func drain(f *Follower) []api.LogLine {
	var all []api.LogLine
	for len(f.C) > 0 {
		all = append(all, <-f.C)
	}
	return all
}

func TestFollow(t *testing.T) {
	var out bytes.Buffer
	l := New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelInfo}))
	log := slog.New(l).With("part", "http")
	log.Debug("unheard")
	log.Info("before", "n", 1)
	debug, warn := l.Follow(slog.LevelDebug), l.Follow(slog.LevelWarn)
	log.Debug("detail", slog.Group("g", "a", "b"))
	log.WithGroup("run").Warn("careful", "id", "x")
	got := fmt.Sprint(drain(debug))
	for _, want := range []string{"INFO before map[n:1 part:http]", "DEBUG detail map[g.a:b part:http]", "WARN careful map[part:http run.id:x]"} {
		if !strings.Contains(got, want) {
			t.Errorf("%s is missing in %s", want, got)
		}
	}
	if strings.Contains(got, "unheard") {
		t.Errorf("made though nobody wanted it: %s", got)
	}
	if got := drain(warn); len(got) != 1 || got[0].Message != "careful" {
		t.Errorf("of warn: %v", got)
	}
	debug.Close()
	if log.Enabled(t.Context(), slog.LevelDebug) {
		t.Error("debug is still made after its follower left")
	}
	if s := out.String(); strings.Contains(s, "detail") || !strings.Contains(s, "careful") {
		t.Errorf("written: %s", s)
	}
	warn.Close()
}

// TestSlowFollower: one that does not take misses records, and is told so.
func TestSlowFollower(t *testing.T) {
	l := New(slog.DiscardHandler)
	f := l.Follow(slog.LevelInfo)
	defer f.Close()
	log := slog.New(l)
	for i := range queued + 5 {
		log.Info("x", "i", i)
	}
	if n := len(drain(f)); n != queued {
		t.Fatalf("%d records are queued", n)
	}
	log.Info("next")
	if got := drain(f); len(got) != 1 || got[0].Dropped != 5 {
		t.Errorf("%+v", got)
	}
}

// TestRing: a new follower gets the newest records, in order.
func TestRing(t *testing.T) {
	l := New(slog.DiscardHandler)
	watch := l.Follow(slog.LevelInfo) // so that records are made at all
	defer watch.Close()
	for i := range kept + 10 {
		slog.New(l).Info(fmt.Sprint(i))
	}
	f := l.Follow(slog.LevelInfo)
	defer f.Close()
	got := drain(f)
	if len(got) != kept || got[0].Message != "10" || got[kept-1].Message != fmt.Sprint(kept+9) {
		t.Errorf("%d records from %s to %s", len(got), got[0].Message, got[len(got)-1].Message)
	}
}
