package jobspec

import (
	"fmt"
	"strings"

	"github.com/hashicorp/hcl/v2"

	"github.com/sheaf-run/agent/sheaf"
)

// oneALine is the way out of every attempt to put two arguments on one line.
const oneALine = "HCL takes one argument a line inside a block: put each on a line of its own"

// hints are the ways out of the parser's and evaluator's own errors, by their
// summary. What stands in none keeps the library's detail.
var hints = map[string]string{
	"Missing newline after argument":           oneALine,
	"Unexpected comma after argument":          oneALine + ", without commas",
	"Invalid single-argument block definition": oneALine,
	"Argument definition required":             oneALine + "; a block inside a block begins on a line of its own",
	"Missing newline after block definition":   "end the line after the closing }",
	"Attribute redefined":                      "give the argument once",
	"Unclosed configuration block":             "close the block with }",
	"Unterminated template string":             `close the string with "`,
}

// adopt takes over a diagnostic of the HCL library. at overrides the path that it spoils.
func (d *decoder) adopt(path string, diags hcl.Diagnostics) {
	for _, h := range diags {
		if h.Severity != hcl.DiagError {
			continue
		}
		p := &sheaf.Error{Class: sheaf.Invalid, Field: path, Msg: lowerFirst(strings.TrimSuffix(h.Summary, ".")), Hint: hints[h.Summary]}
		rng := hcl.Range{Filename: d.file, Start: hcl.InitialPos, End: hcl.InitialPos}
		if h.Subject != nil {
			rng = *h.Subject
		}
		text := d.textOf(rng)
		switch h.Summary {
		case "Unknown variable", "Unsupported attribute":
			rng = d.wholeName(rng)
			p.Msg, p.Hint = d.unknownName(d.textOf(rng))
		case "Call to unknown function":
			name, _, _ := strings.Cut(text, "(")
			p.Msg, p.Hint = fmt.Sprintf("there is no function %s", quoted(name)), functionHint(name)
		case "Invalid escape sequence":
			if len(text) >= 2 {
				p.Msg = fmt.Sprintf("%s is no escape in a string", quoted(text))
				p.Hint = fmt.Sprintf(`a backslash is written twice: \%s`, text)
			}
		case "Invalid expression":
			if n := len(d.diags); n > 0 && h.Subject != nil && d.diags[n-1].Line == h.Subject.Start.Line {
				continue // a follower of the mistake before
			}
		case "Invalid character", "Unsupported operator":
			p.Msg, p.Hint = fmt.Sprintf("%s cannot stand here", quoted(text)), h.Detail
		}
		if p.Hint == "" {
			p.Hint = h.Detail
		}
		d.report(rng, p)
	}
}

// unknownName words the error for a name that evaluation does not know.
func (d *decoder) unknownName(name string) (msg, hint string) {
	root, _, _ := strings.Cut(strings.TrimSpace(name), ".")
	if runtimeRoots[root] {
		return fmt.Sprintf("${%s} cannot be used here: it is known only while the task runs", name),
			`run-time references may stand in strings of config, env and constraints, by themselves or in longer text, as in "part-${partition.index}"`
	}
	escape := fmt.Sprintf("; for a shell's own write $${%s}, and %%%%{ for %%{", printable(name))
	if known := d.known(root); known != "" {
		return fmt.Sprintf("%s is not defined", quoted(name)), known + escape
	}
	return fmt.Sprintf("unknown name %s", quoted(name)), "known are var.NAME, local.NAME and run-time references such as ${partition.index}" + escape
}

// wholeName stretches a range over the dotted name that it is a part of.
func (d *decoder) wholeName(rng hcl.Range) hcl.Range {
	src := d.sources[rng.Filename]
	part := func(i int) bool {
		return i >= 0 && i < len(src) && (src[i] == '.' || src[i] == '_' || src[i] == '-' || src[i] >= '0' && src[i] <= '9' || src[i]|0x20 >= 'a' && src[i]|0x20 <= 'z')
	}
	for part(rng.Start.Byte - 1) {
		rng.Start.Byte--
		rng.Start.Column--
	}
	for part(rng.End.Byte) {
		rng.End.Byte++
		rng.End.Column++
	}
	return rng
}

func lowerFirst(s string) string {
	if s == "" {
		return s
	}
	return strings.ToLower(s[:1]) + s[1:]
}
