package jobspec

import (
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/sheaf-run/agent/sheaf"
)

// decoder reads one jobspec. It remembers where each value of the job was
// written, so that the rules of [Check], which know paths only, get places.
type decoder struct {
	file    string
	dir     string
	sources map[string][]byte // by file name
	schemas map[string]sheaf.ConfigSchema
	ctx     *hcl.EvalContext

	at      map[string]hcl.Range // JSON path to where it is written; "" is the job's header
	spoiled map[string]bool      // paths with a mistake already: rules keep silent about them
	secret  map[string]bool      // paths whose values came from sensitive variables
	broken  map[int]bool         // lines whose syntax is wrong: nothing more is said about them

	diags    Diagnostics
	warnings Warnings
}

// sensitive marks values of sensitive variables through evaluation.
type sensitive struct{}

// report notes a mistake at a range, and spoils its field.
func (d *decoder) report(rng hcl.Range, p *sheaf.Error) {
	if d.secret[p.Field] {
		p.Msg = p.Field + " is not accepted (its value is sensitive and not shown)"
	}
	d.spoiled[p.Field] = true
	if d.broken[rng.Start.Line] && rng.Filename == d.file {
		return
	}
	d.diags = append(d.diags, d.pointAt(rng, p))
}

func (d *decoder) pointAt(rng hcl.Range, p *sheaf.Error) Diagnostic {
	src, ok := d.sources[rng.Filename]
	if !ok {
		return Diagnostic{File: rng.Filename, Problem: p}
	}
	return pointAt(rng.Filename, src, rng.Start.Byte, rng.End.Byte, p)
}

// textOf is the source text of a range.
func (d *decoder) textOf(rng hcl.Range) string {
	src := d.sources[rng.Filename]
	if rng.Start.Byte < 0 || rng.End.Byte > len(src) || rng.Start.Byte > rng.End.Byte {
		return ""
	}
	return string(src[rng.Start.Byte:rng.End.Byte])
}

// locate is where path, or the nearest thing around it, is written.
func (d *decoder) locate(path string) (rng hcl.Range, exact bool) {
	for p := path; ; p = parentOf(p) {
		if rng, ok := d.at[p]; ok {
			return rng, p == path
		}
		if p == "" {
			return hcl.Range{Filename: d.file, Start: hcl.InitialPos, End: hcl.InitialPos}, false
		}
	}
}

// parentOf is path without its last key or index.
func parentOf(path string) string {
	return path[:max(0, strings.LastIndexAny(path, ".["))]
}

// isSpoiled reports whether a mistake was reported at path, around it or within it.
func (d *decoder) isSpoiled(path string) bool {
	for p := path; p != ""; p = parentOf(p) {
		if d.spoiled[p] {
			return true
		}
	}
	for s := range d.spoiled {
		if rest, ok := strings.CutPrefix(s, path); ok && rest != "" && (rest[0] == '.' || rest[0] == '[') {
			return true
		}
	}
	return false
}

// written reports whether the jobspec gives path a value.
func (d *decoder) written(path string) bool {
	_, ok := d.at[path]
	return ok
}

// judge applies the rules to what was read.
func (d *decoder) judge(job *sheaf.Job) {
	for _, p := range problems(job, d.schemas) {
		if d.isSpoiled(p.Field) {
			continue
		}
		rng, exact := d.locate(p.Field)
		if len(d.broken) > 0 && (!exact || d.broken[rng.Start.Line]) {
			continue // what seems to be missing may be in what could not be read
		}
		if d.secret[p.Field] {
			p.Msg = p.Field + " is not accepted (its value is sensitive and not shown)"
		}
		d.diags = append(d.diags, d.pointAt(rng, p))
	}
	slices.SortStableFunc(d.diags, byPlace)
	d.diags = slices.CompactFunc(d.diags, func(a, b Diagnostic) bool {
		return a.File == b.File && a.Line == b.Line && a.Column == b.Column && a.Problem.Msg == b.Problem.Msg
	})
}

// eval gives an expression's value for path, known and without marks. ok is false where it
// cannot be had, which is then reported.
func (d *decoder) eval(path string, e hclsyntax.Expression) (v cty.Value, ok bool) {
	v, diags := e.Value(d.ctx)
	if diags.HasErrors() {
		d.adopt(path, diags)
		return cty.NilVal, false
	}
	v = d.plain(path, v)
	if !v.IsWhollyKnown() { // of an expression that could not be parsed
		d.spoiled[path] = true
		return cty.NilVal, false
	}
	return v, true
}

// plain takes the marks off v and remembers them.
func (d *decoder) plain(path string, v cty.Value) cty.Value {
	v, marks := v.UnmarkDeep()
	if _, ok := marks[sensitive{}]; ok {
		d.secret[path] = true
	}
	return v
}

// evaluate reads HCL that [measure] let pass.
func evaluate(src Source, opts Options) (*sheaf.Job, Warnings, Diagnostics) {
	d := &decoder{
		file: src.Name, dir: src.Dir, schemas: opts.Drivers,
		sources: map[string][]byte{src.Name: src.Data},
		at:      map[string]hcl.Range{}, spoiled: map[string]bool{}, secret: map[string]bool{},
	}
	file, diags := hclsyntax.ParseConfig(src.Data, src.Name, hcl.InitialPos)
	d.adopt("", diags)
	clear(d.spoiled)
	d.broken = map[int]bool{}
	for _, x := range d.diags {
		d.broken[x.Line] = true
	}
	body, ok := file.Body.(*hclsyntax.Body)
	if !ok || body == nil {
		return nil, nil, d.diags.cut()
	}
	job := d.document(body, opts)
	for _, p := range zeros(job, d.written) {
		if rng, _ := d.locate(p.Field); !d.isSpoiled(p.Field) {
			d.report(rng, p)
		}
	}
	defaults(job, d.written)
	d.resolve(job)
	d.judge(job)
	d.warnUnnormalized(src)
	if len(d.diags) > 0 {
		return nil, nil, d.diags.cut()
	}
	return job, d.warnings, nil
}
