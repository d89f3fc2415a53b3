package scheduler_test

import (
	"testing"

	"github.com/sheaf-run/agent/server/scheduler"
)

func TestLargest(t *testing.T) {
	large := []uint32{2, 3, 9, 40}
	for _, c := range []struct {
		name  string
		most  int
		waits func(int) bool
		want  string
	}{
		{"all wait", 100, func(int) bool { return true }, "2-3,9,40"},
		{"room for two", 2, func(int) bool { return true }, "2-3"},
		{"no room", 0, func(int) bool { return true }, ""},
		{"one had its attempt", 2, func(p int) bool { return p != 3 }, "2,9"},
		{"all had theirs", 100, func(int) bool { return false }, ""},
	} {
		if got := scheduler.Largest(large, c.most, c.waits); got.String() != c.want || (got == nil) != (c.want == "") {
			t.Errorf("%s: %v, want %s", c.name, got, c.want)
		}
	}
}
