package leader

import (
	"testing"

	"github.com/sheaf-run/agent/sheaf"
)

func TestCommon(t *testing.T) {
	for _, c := range []struct{ a, b, want string }{
		{"0-9", "3,7-20", "3,7-9"},
		{"0-2,5-6,9", "2-5,9-10", "2,5,9"},
		{"0-2", "3-4", ""},
		{"4", "0-9", "4"},
	} {
		a, err := sheaf.ParseRanges(c.a)
		if err != nil {
			t.Fatal(err)
		}
		b, err := sheaf.ParseRanges(c.b)
		if err != nil {
			t.Fatal(err)
		}
		var got sheaf.Ranges
		common(a, b, func(x sheaf.Range) bool { got = got.AddRange(x.First, x.Last); return true })
		if got.String() != c.want {
			t.Errorf("%s and %s have %s in common, want %s", c.a, c.b, got, c.want)
		}
	}
}
