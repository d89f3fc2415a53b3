package shard

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/sheaf-run/agent/sheaf"
)

// Rule is a job's split, compiled.
type Rule struct {
	inputs    []sheaf.Input
	base      string // absolute, clean
	baseDepth int    // its names
	text      string // the glob as it was written
	glob      *glob
	patterns  [][]segment // base and glob together, from "/"
	files     bool        // files are atoms
	dirs      bool        // directories are

	batch      int   // atoms a partition; 0 is unlimited
	maxBytes   int64 // 0 is unlimited
	partitions int   // 0 is as many as come
	stable     bool  // the atoms' paths say where a batch ends; batch is the average
	groupBy    *regexp.Regexp
	rest       string // of sheaf.GroupRest…
	allowEmpty bool
	outside    []string // inputs that lie outside the base

	field       string // where it stands in the job
	only        int32  // the one input that is looked at, or everyInput
	combination *combination
}

// everyInput is where a glob is not one input's.
const everyInput int32 = -1

// Compile checks a job's split together with its inputs. Mistakes are Invalid
// errors that name the argument and the way out.
func Compile(job *sheaf.Job) (*Rule, error) {
	s := job.Split
	if s == nil {
		return nil, invalid("split", "the job has no split", "add one, or use count")
	}
	if len(job.Inputs) == 0 {
		return nil, invalid("split", "there is no input to split", "add an input block, or use count instead of split")
	}
	r := &Rule{
		inputs: job.Inputs, batch: s.BatchSize, maxBytes: int64(s.MaxBytes), partitions: s.Partitions, stable: s.Stable,
		rest: s.GroupRest, allowEmpty: s.AllowEmpty, field: "split", only: everyInput,
	}
	if err := r.checkBatching(); err != nil {
		return nil, err
	}
	if err := r.setGroups(s.GroupBy); err != nil {
		return nil, err
	}
	if s.Combine != nil {
		return r, r.combine(s)
	}
	return r, r.setGlob(s.BasePath, s.Glob, s.Match)
}

// setGlob takes what is matched, and where.
func (r *Rule) setGlob(base, text, match string) (err error) {
	if err := r.setBase(base); err != nil {
		return err
	}
	r.text = text
	if r.glob, err = parseGlob(text); err != nil {
		return err
	}
	if err := r.setPatterns(); err != nil {
		return err
	}
	return r.setMatch(match)
}

func invalid(field, msg, hint string) error {
	return &sheaf.Error{Class: sheaf.Invalid, Field: field, Msg: msg, Hint: hint}
}

// setBase takes the base path, or its default.
func (r *Rule) setBase(base string) error {
	switch {
	case base == "" && len(r.inputs) == 1:
		base = r.inputs[0].Mount
	case base == "":
		base = "/"
	case base[0] != '/':
		return invalid("split.base_path", fmt.Sprintf("base_path %q is not absolute", base), fmt.Sprintf("write %q", "/"+base))
	}
	var names []string
	for _, name := range strings.Split(base, "/") {
		switch name {
		case "", ".":
		case "..":
			return invalid("split.base_path", fmt.Sprintf("base_path %q has a \"..\"", base), "write the path without it")
		default:
			names = append(names, name)
		}
	}
	r.base, r.baseDepth = "/"+strings.Join(names, "/"), len(names)
	for _, in := range r.inputs {
		if !within(in.Mount, r.base) && !within(r.base, in.Mount) {
			r.outside = append(r.outside, in.Name)
		}
	}
	if len(r.outside) == len(r.inputs) {
		var mounts []string
		for _, in := range r.inputs {
			mounts = append(mounts, in.Mount)
		}
		return invalid("split.base_path", fmt.Sprintf("no input is mounted at base_path %q, above it or below it", base), "the mounts are "+strings.Join(mounts, ", "))
	}
	return nil
}

// within reports whether path is dir or lies in it; both are absolute and clean.
func within(path, dir string) bool {
	return path == dir || dir == "/" || strings.HasPrefix(path, dir) && path[len(dir)] == '/'
}

// setPatterns puts the base before the glob.
func (r *Rule) setPatterns() error {
	var base []segment
	for _, name := range strings.Split(r.base, "/") {
		if name != "" {
			base = append(base, segment{literals: map[string]struct{}{name: {}}})
		}
	}
	for _, p := range r.glob.patterns {
		p = append(slices.Clone(base), p...)
		if len(p) > maxSegments {
			return &sheaf.Error{Class: sheaf.Invalid, Field: "split.glob", Msg: fmt.Sprintf("base_path and glob have %d segments together", len(p)), Limit: strconv.Itoa(maxSegments), Hint: "use ** for many levels"}
		}
		r.patterns = append(r.patterns, p)
	}
	return nil
}

// setMatch takes what may be an atom, or the glob's own rule.
func (r *Rule) setMatch(match string) error {
	whole := r.glob.whole()
	switch {
	case match == sheaf.MatchFiles && whole:
		return invalid("split.match", fmt.Sprintf("glob %q is the whole tree, a directory, and match is \"files\"", r.text), `write glob = "/**" for every file`)
	case match == sheaf.MatchFiles && r.glob.dirsOnly:
		return invalid("split.match", fmt.Sprintf("glob %q ends in a slash, which means directories, and match is \"files\"", r.text), "leave out the slash")
	case match == sheaf.MatchFiles:
		r.files = true
	case match == sheaf.MatchDirs:
		r.dirs = true
	case match != "" && match != sheaf.MatchAny:
		return invalid("split.match", fmt.Sprintf("match is %q", match), `write "any", "files" or "dirs"`)
	case whole:
		r.files, r.dirs = true, true // a base that is a file is one
	case r.glob.dirsOnly:
		r.dirs = true
	case r.glob.deep && match == "":
		r.files = true
	default:
		r.files, r.dirs = true, true
	}
	return nil
}

func (r *Rule) checkBatching() error {
	atLeastOne := func(field string, n int64) error {
		if n < 0 {
			return &sheaf.Error{Class: sheaf.Invalid, Field: "split." + field, Msg: fmt.Sprintf("%s is %d", field, n), Limit: "at least 1", Hint: "write 1 or more, or leave it out"}
		}
		return nil
	}
	if err := atLeastOne("batch_size", int64(r.batch)); err != nil {
		return err
	}
	if err := atLeastOne("max_bytes", r.maxBytes); err != nil {
		return err
	}
	if err := atLeastOne("partitions", int64(r.partitions)); err != nil {
		return err
	}
	if r.partitions > sheaf.MaxPartitions {
		return tooManyPartitions("split.partitions", fmt.Sprintf("partitions is %d", r.partitions))
	}
	if r.partitions > 0 && (r.batch > 0 || r.maxBytes > 0) {
		return invalid("split.partitions", "partitions stands beside batch_size or max_bytes", "keep one: partitions fixes how many there are, the others how large they are")
	}
	return r.checkStable()
}

// checkStable checks what stable batches need: an average, and nothing that fixes the cuts.
func (r *Rule) checkStable() error {
	switch {
	case !r.stable:
	case r.partitions > 0:
		return invalid("split.stable", "stable stands beside partitions, which moves every cut when one file is added", "keep one: give batch_size, the average, to stable batches")
	case r.batch == 0:
		return invalid("split.stable", "stable batches have no average size", "set batch_size")
	}
	return nil
}

func tooManyPartitions(field, msg string) error {
	return &sheaf.Error{Class: sheaf.Invalid, Field: field, Msg: msg, Limit: fmt.Sprintf("%d partitions", sheaf.MaxPartitions), Hint: "put more into each partition: raise batch_size or max_bytes, or match directories"}
}

// setGroups takes the expression whose captures are the key.
func (r *Rule) setGroups(expr string) error {
	switch r.rest {
	case "":
		r.rest = sheaf.GroupRestError
	case sheaf.GroupRestError, sheaf.GroupRestKeep, sheaf.GroupRestDrop:
	default:
		return invalid("split.group_rest", fmt.Sprintf("group_rest is %q", r.rest), `write "error", "keep" or "drop"`)
	}
	if expr == "" {
		if r.rest != sheaf.GroupRestError {
			return invalid("split.group_rest", "group_rest stands without group_by", "add group_by, or leave group_rest out")
		}
		return nil
	}
	re, err := regexp.Compile(expr)
	if err != nil {
		return &sheaf.Error{Class: sheaf.Invalid, Field: "split.group_by", Msg: fmt.Sprintf("group_by %q is no regular expression", expr), Err: err, Hint: "it is RE2: no look-around and no back-references"}
	}
	if re.NumSubexp() == 0 {
		return invalid("split.group_by", fmt.Sprintf("group_by %q has no capture, and its captures are the key", expr), "put parentheses around the part that names the group")
	}
	r.groupBy = re
	return nil
}

// belowBase is an atom's path below the base, beginning with a slash.
func (r *Rule) belowBase(path string) string {
	// The base's own bytes may differ from those of the path, which may be in
	// another normal form; its depth does not.
	at := 0
	for range r.baseDepth {
		i := strings.IndexByte(path[at+1:], '/')
		if i < 0 {
			return "/"
		}
		at += 1 + i
	}
	return path[at:]
}

// inputName is the name of an entry's input; "" where it holds several.
func (r *Rule) inputName(input int32) string {
	if input < 0 || int(input) >= len(r.inputs) {
		return ""
	}
	return r.inputs[input].Name
}

// Nothing is the identity of the one atom that stands in a manifest for a tree without inputs.
const Nothing = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// Whole is the shard of a partition of a job without a split: each input's
// mount as a directory atom, without size and identity.
func Whole(inputs []sheaf.Input) sheaf.Shard {
	var s sheaf.Shard
	for _, in := range inputs {
		s.Data = append(s.Data, sheaf.Datum{Atoms: []sheaf.Atom{{Path: in.Mount, Input: in.Name, Dir: true}}})
	}
	return s
}
