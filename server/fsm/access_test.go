package fsm_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sheaf-run/agent/server/fsm"
	"github.com/sheaf-run/agent/server/state"
)

// writeACL reads what comes behind "acl" in a line. A token's secret is its accessor.
func (s *script) writeACL(f []string) *fsm.WriteACL {
	s.t.Helper()
	token := func(accessor string) *fsm.ACLToken {
		d := sha256.Sum256([]byte(accessor))
		return &fsm.ACLToken{Accessor: accessor, SecretSha256: d[:]}
	}
	switch f[0] {
	case "bootstrap":
		x := token(f[1])
		x.Management = true
		w := &fsm.WriteACL{Bootstrap: true, PutTokens: []*fsm.ACLToken{x}}
		if len(f) > 2 {
			w.ResetIndex = uint64(number(f[2]))
		}
		return w
	case "policy":
		return &fsm.WriteACL{PutPolicies: []*fsm.ACLPolicy{{Name: f[1], Rules: f[2]}}}
	case "token":
		x := token(f[1])
		if x.Management = f[2] == "management"; !x.Management {
			x.Policies = strings.Split(f[2], ",")
		}
		if len(f) > 3 {
			d, err := time.ParseDuration(strings.TrimPrefix(f[3], "+"))
			if err != nil {
				s.t.Fatal(err)
			}
			x.ExpiresMs = s.ms + d.Milliseconds()
		}
		return &fsm.WriteACL{PutTokens: []*fsm.ACLToken{x}}
	case "delete-policy":
		return &fsm.WriteACL{DeletePolicies: f[1:]}
	case "delete-token":
		return &fsm.WriteACL{DeleteTokens: f[1:]}
	case "reap":
		return &fsm.WriteACL{ReapExpired: true}
	}
	s.t.Fatalf("no such change: acl %s", f[0])
	return nil
}

// access is who may do what.
func (s *script) access() string {
	var b strings.Builder
	snap := s.snap()
	fmt.Fprintf(&b, "bootstrapped at %d\n", snap.ACLBootstrap())
	for p := range snap.Policies() {
		fmt.Fprintf(&b, "policy %s: %s\n", p.Name, p.Rules)
	}
	for t := range snap.Tokens() {
		fmt.Fprintf(&b, "token %s management=%v policies=%v expired=%v\n", t.Accessor, t.Management, t.Policies, t.Expired(s.ms))
	}
	for n := range snap.Namespaces() {
		fmt.Fprintf(&b, "namespace %s: %s\n", n.Name, n.Description)
	}
	return b.String()
}

// TestAccessIsRestored: policies, tokens and namespaces are in snapshots, and a secret is found by its digest again.
func TestAccessIsRestored(t *testing.T) {
	s, _ := runGolden(t, laterScript...)
	var image bytes.Buffer
	if _, err := s.m.Image().WriteTo(&image); err != nil {
		t.Fatal(err)
	}
	restored := &script{t: t, m: fsm.New(state.New(&state.MemoryChunks{})), ms: s.ms}
	if err := restored.m.Restore(&image); err != nil {
		t.Fatal(err)
	}
	if got, want := restored.access(), s.access(); got != want || !strings.Contains(got, "token second") {
		t.Errorf("restored:\n%swas:\n%s", got, want)
	}
	if got, want := restored.snap().Digest(), s.snap().Digest(); got != want {
		t.Errorf("the digest is %s, was %s", got, want)
	}
	if x := restored.snap().TokenBySecret(sha256.Sum256([]byte("second"))); x == nil || x.Accessor != "second" {
		t.Errorf("found %+v", x)
	}
}
