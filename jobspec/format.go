package jobspec

import (
	"bytes"
	"encoding/json"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/hclwrite"
)

// Format gives the canonical layout of a jobspec, HCL or JSON: aligned, two
// spaces a level, \n at line ends. name is for messages. The error is a [Diagnostics] where
// the source cannot be read; whether it makes a job is not looked at.
func Format(name string, src []byte) ([]byte, error) {
	data, ds := normalize(name, src, MaxJob)
	if len(ds) > 0 {
		return nil, ds
	}
	if isJSON(data) {
		if p, at := measureJSON(data); p != nil {
			return nil, Diagnostics{pointAt(name, data, at, at+1, p)}
		}
		var out bytes.Buffer
		if err := json.Indent(&out, bytes.TrimSpace(data), "", "  "); err != nil {
			return nil, err
		}
		out.WriteByte('\n')
		return out.Bytes(), nil
	}
	if ds := measure(name, data); len(ds) > 0 {
		return nil, ds
	}
	if _, diags := hclsyntax.ParseConfig(data, name, hcl.InitialPos); diags.HasErrors() {
		d := &decoder{file: name, sources: map[string][]byte{name: data}, spoiled: map[string]bool{}}
		d.adopt("", diags)
		return nil, d.diags.cut()
	}
	// The formatter leaves spaces at the end of a last line that has no \n.
	out := hclwrite.Format(append(data, '\n'))
	return append(bytes.TrimRight(out, " \n"), '\n'), nil
}
