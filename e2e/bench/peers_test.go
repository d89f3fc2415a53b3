package main

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// TestPeersThatAreMissing: each is told with the package that has it.
func TestPeersThatAreMissing(t *testing.T) {
	if err := present(peersNeed, func(string) (string, error) { return "", nil }); err != nil {
		t.Errorf("nothing is missing: %v", err)
	}
	err := present(peersNeed, func(string) (string, error) { return "", exec.ErrNotFound })
	for _, p := range peersNeed {
		if err == nil || !strings.Contains(err.Error(), p.program) || !strings.Contains(err.Error(), "package "+p.debian) {
			t.Errorf("%s is missing: %v", p.program, err)
		}
	}
	script, err := os.ReadFile("install-peers")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range peersNeed {
		if !slices.Contains(strings.FieldsFunc(string(script), func(r rune) bool { return strings.ContainsRune(" \n;", r) }), p.debian) {
			t.Errorf("install-peers does not install %s", p.debian)
		}
	}
}

// TestRawRaft commits something.
func TestRawRaft(t *testing.T) {
	b := &bench{root: t.TempDir()}
	if rate, err := b.rawRaft(t.Context()); err != nil || rate <= 0 {
		t.Errorf("%v entries a second, %v", rate, err)
	}
}
