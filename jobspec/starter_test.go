package jobspec

import (
	"bytes"
	"errors"
	"testing"

	"github.com/sheaf-run/agent/sheaf"
)

func TestTemplates(t *testing.T) {
	unsupported := map[string]string{"ipfs": "inputs[0].source"}
	for _, name := range TemplateNames() {
		text, err := Template(name)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		formatted, err := Format(name, text)
		if err != nil || !bytes.Equal(formatted, text) {
			t.Errorf("%s is not in the canonical layout, which is\n%s%v", name, formatted, err)
		}
		job, _, err := Eval(source(string(text)), Options{Drivers: drivers})
		field, refused := unsupported[name]
		if !refused {
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			checkComplete(t, job)
			continue
		}
		var ds Diagnostics
		if !errors.As(err, &ds) || len(ds) != 1 || ds[0].Problem.Class != sheaf.Unsupported || ds[0].Problem.Field != field {
			t.Errorf("%s: got %v, want %s refused and nothing else", name, err, field)
		}
	}
	if _, err := Template("globb"); sheaf.ClassOf(err) != sheaf.Invalid {
		t.Errorf("an unknown template gives %v", err)
	}
}
