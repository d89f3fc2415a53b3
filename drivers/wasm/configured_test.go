package wasm

import (
	"fmt"
	"testing"

	"github.com/tetratelabs/wazero"
)

// Whatever ran before, a guest gets exactly what its own run says.
func TestConfiguredLikeTheFirst(t *testing.T) {
	runs := []run{
		{args: []string{"a"}, env: []string{"I=1", "RUN=x"}},
		{args: []string{"a"}, env: []string{"I=2", "RUN=x"}},
		{args: []string{"a"}, env: []string{"I=2", "RUN=x", "SECRET=s"}},
		{args: []string{"a"}, env: []string{"I=3", "RUN=x"}},
		{args: []string{"b"}, env: []string{"I=3", "RUN=x"}},
		{args: []string{"b"}, env: []string{"I=3", "RUN"}},
		{args: []string{"b"}, env: []string{"RUN=", "I=3"}},
		{args: []string{"b"}, env: []string{"I=1", "I=2"}},
		{args: []string{"b"}, env: []string{"I=3", "I=2"}},
		{args: []string{"b"}},
		{},
		{env: []string{"I=1"}},
	}
	base := wazero.NewModuleConfig()
	var c configured
	for i, r := range runs {
		var first configured
		got, want := fmt.Sprintf("%+v", c.become(base, &r)), fmt.Sprintf("%+v", first.become(base, &r))
		if got != want {
			t.Errorf("run %d gets %s, want %s", i, got, want)
		}
	}
}
