package simtest

import "testing"

// TestSeedReplaysExactly runs seeds twice: a violation that cannot be seen again
// cannot be understood.
func TestSeedReplaysExactly(t *testing.T) {
	for s := range uint64(10) {
		a, err := Run(s)
		if err != nil {
			t.Fatal(err)
		}
		b, err := Run(s)
		if err != nil {
			t.Fatal(err)
		}
		if a.Hash != b.Hash || a.Digest != b.Digest || a.Commands != b.Commands {
			t.Errorf("seed %d: %x with %d commands and state %s, then %x with %d and %s", s, a.Hash, a.Commands, a.Digest, b.Hash, b.Commands, b.Digest)
		}
	}
	a, _ := Run(1)
	b, _ := Run(2)
	if a.Hash == b.Hash {
		t.Error("two seeds do the same")
	}
}
