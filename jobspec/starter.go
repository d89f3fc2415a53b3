package jobspec

import (
	"embed"
	"fmt"
	"slices"

	"github.com/sheaf-run/agent/sheaf"
)

//go:embed templates/*.hcl
var templates embed.FS

// Template is a commented jobspec to begin with, by its name; see [TemplateNames].
// An unknown name is an error that lists them. Those of sources and blocks that this version
// does not support are refused by Parse as any other such file is.
func Template(name string) ([]byte, error) {
	if !slices.Contains(TemplateNames(), name) {
		return nil, &sheaf.Error{Class: sheaf.Invalid, Field: "template", Msg: fmt.Sprintf("there is no template %s", quoted(name)), Hint: didYouMean(name, TemplateNames())}
	}
	return templates.ReadFile("templates/" + name + ".hcl")
}

// TemplateNames lists the templates, the default first.
func TemplateNames() []string { return []string{"glob", "count", "cross", "s3", "ipfs", "wasm"} }
