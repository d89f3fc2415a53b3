package datatoken_test

import (
	"bytes"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sheaf-run/agent/internal/datatoken"
	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/sheaf"
)

const now = 1_700_000_000_000

func claims() *wire.DataClaims {
	return &wire.DataClaims{Run: "r", Holder: "n2", HolderName: "two", ExpiresMs: now + datatoken.Lifetime.Milliseconds(),
		Outputs: &wire.Executions{First: []uint32{3}, Count: []uint32{2}, Attempt: []uint32{7}}}
}

func TestTokensThatAreNotAsSignedAreRefused(t *testing.T) {
	s := datatoken.NewSigner()
	var k datatoken.Keys
	good := s.Sign(claims())
	if _, err := k.Check(good); sheaf.ClassOf(err) != sheaf.Denied {
		t.Errorf("a node that knows no leader gives %v", err)
	}
	k.Learn(s.Public(), now)
	if c, err := k.Check(good); err != nil || c.Run != "r" || c.HolderName != "two" {
		t.Fatalf("a good token gives %v, %v", c, err)
	}
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 1
		if _, err := k.Check(bad); sheaf.ClassOf(err) != sheaf.Denied {
			t.Errorf("with byte %d changed: %v", i, err)
		}
	}
	for what, bad := range map[string][]byte{
		"nothing": nil, "short": good[:40], "the signature alone": good[:64], "cut": good[:len(good)-1],
		"longer": append(bytes.Clone(good), 0), "huge": make([]byte, 1<<20), "another leader's": datatoken.NewSigner().Sign(claims()),
	} {
		if _, err := k.Check(bad); sheaf.ClassOf(err) != sheaf.Denied {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestTokensExpireInClusterTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := datatoken.NewSigner()
		var k datatoken.Keys
		k.Learn(s.Public(), now)
		token := s.Sign(claims())
		time.Sleep(datatoken.Lifetime - time.Millisecond)
		if _, err := k.Check(token); err != nil {
			t.Errorf("before its end: %v", err)
		}
		time.Sleep(time.Millisecond)
		if _, err := k.Check(token); sheaf.ClassOf(err) != sheaf.Denied {
			t.Errorf("at its end: %v", err)
		}
	})
}

// A leader that has gone signed what readers still show.
func TestEarlierLeadersAreRememberedForAWhile(t *testing.T) {
	var k datatoken.Keys
	first := datatoken.NewSigner()
	k.Learn(first.Public(), now)
	token := first.Sign(claims())
	for range 7 {
		k.Learn(datatoken.NewSigner().Public(), now)
		if _, err := k.Check(token); err != nil {
			t.Fatal(err)
		}
	}
	k.Learn(datatoken.NewSigner().Public(), now)
	if _, err := k.Check(token); sheaf.ClassOf(err) != sheaf.Denied {
		t.Errorf("after eight leaders: %v", err)
	}
	k.Learn([]byte("short"), now) // is passed over
}

func TestTokensAreForWhatTheyName(t *testing.T) {
	one := func(p, count, attempt uint32) *wire.Executions {
		return &wire.Executions{First: []uint32{p}, Count: []uint32{count}, Attempt: []uint32{attempt}}
	}
	all := claims()
	all.Outputs = nil
	for _, c := range []struct {
		what    string
		claims  *wire.DataClaims
		run     sheaf.RunID
		outputs *wire.Executions
		ok      bool
	}{
		{"one of them", claims(), "r", one(4, 1, 7), true},
		{"both", claims(), "r", one(3, 2, 7), true},
		{"another attempt", claims(), "r", one(4, 1, 8), false},
		{"the latest", claims(), "r", one(4, 1, 0), false},
		{"one too many", claims(), "r", one(3, 3, 7), false},
		{"one before", claims(), "r", one(2, 1, 7), false},
		{"beyond the last", claims(), "r", one(1<<32-1, 2, 7), false},
		{"all by some", claims(), "r", nil, false},
		{"another run", claims(), "s", one(4, 1, 7), false},
		{"any by all", all, "r", one(999, 1, 3), true},
		{"all by all", all, "r", nil, true},
		{"all of another run", all, "s", nil, false},
	} {
		if err := datatoken.Allows(c.claims, c.run, c.outputs); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.what, err)
		}
	}
}
