package jobspec

import (
	"bytes"
	"testing"

	"github.com/sheaf-run/agent/sheaf"
)

func TestTemplates(t *testing.T) {
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
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		checkComplete(t, job)
	}
	if _, err := Template("globb"); sheaf.ClassOf(err) != sheaf.Invalid {
		t.Errorf("an unknown template gives %v", err)
	}
}
