package bacalhau

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/sheaf-run/agent/sheaf"
)

// maxDepth is how deeply a file nests at most.
const maxDepth = 64

// value is a part of the file with its place. Asking for a key marks it as
// understood; keys are found whatever their case, as Bacalhau does.
type value struct {
	path   string
	line   int
	node   *yaml.Node // nil where nothing stands
	fields map[string]*value
	order  []string
	asked  map[string]bool
}

// parse reads the one document of a file. An alias is an error: a file of aliases
// can be of any size when it is read.
func parse(src []byte) (*value, error) {
	d := yaml.NewDecoder(strings.NewReader(string(src)))
	var doc, second yaml.Node
	switch err := d.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return nil, &sheaf.Error{Class: sheaf.Invalid, Msg: "the file is empty", Hint: "name a Bacalhau job file, YAML or JSON"}
	case err != nil:
		return nil, &sheaf.Error{Class: sheaf.Invalid, Msg: strings.TrimPrefix(err.Error(), "yaml: "), Hint: "fix the YAML; a file with {{…}} in it is a template, which `bacalhau job run --dry-run` fills in"}
	}
	if err := d.Decode(&second); !errors.Is(err, io.EOF) {
		return nil, &sheaf.Error{Class: sheaf.Invalid, Msg: "the file holds more than one document", Hint: "write each job into a file of its own"}
	}
	if err := plain(&doc, 0); err != nil {
		return nil, err
	}
	return newValue("", doc.Content[0]), nil
}

// plain refuses what makes a file more than its text, and keys that are there twice.
func plain(n *yaml.Node, depth int) error {
	if n.Kind == yaml.AliasNode || depth > maxDepth {
		return &sheaf.Error{Class: sheaf.Invalid, Msg: fmt.Sprintf("line %d: an alias, or nesting beyond %d", n.Line, maxDepth), Hint: "write in full what the alias stands for"}
	}
	keys := map[string]bool{}
	for i, child := range n.Content {
		if n.Kind == yaml.MappingNode && i%2 == 0 {
			lower := strings.ToLower(child.Value)
			if keys[lower] {
				return &sheaf.Error{Class: sheaf.Invalid, Msg: fmt.Sprintf("line %d: the key %q is there twice", child.Line, child.Value), Hint: "leave one of them out"}
			}
			keys[lower] = true
		}
		if err := plain(child, depth+1); err != nil {
			return err
		}
	}
	return nil
}

func newValue(path string, n *yaml.Node) *value {
	v := &value{path: path, line: n.Line, node: n, asked: map[string]bool{}}
	if n.Kind != yaml.MappingNode {
		return v
	}
	v.fields = map[string]*value{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		child := newValue(strings.TrimPrefix(path+"."+key.Value, "."), n.Content[i+1])
		child.line = key.Line
		lower := strings.ToLower(key.Value)
		v.fields[lower] = child
		v.order = append(v.order, lower)
	}
	return v
}

func (v *value) there() bool { return v.node != nil && v.node.Tag != "!!null" }

func (v *value) mapping() bool { return v.there() && v.node.Kind == yaml.MappingNode }

// get is what stands at a key, or a value that is not there.
func (v *value) get(key string) *value {
	lower := strings.ToLower(key)
	if v.asked != nil {
		v.asked[lower] = true
	}
	if child := v.fields[lower]; child != nil {
		return child
	}
	return &value{path: strings.TrimPrefix(v.path+"."+key, "."), line: v.line}
}

// unused are the keys that nobody asked for, in their order, but for those without a value.
func (v *value) unused() []*value {
	var list []*value
	for _, key := range v.order {
		if child := v.fields[key]; !v.asked[key] && !child.hollow() {
			list = append(list, child)
		}
	}
	return list
}

// hollow reports whether nothing is said by it: null, "", [] or {}.
func (v *value) hollow() bool {
	return !v.there() || v.node.Value == "" && len(v.node.Content) == 0
}

// text is a scalar, or def where there is none.
func (v *value) text(def string) string {
	if !v.there() || v.node.Kind != yaml.ScalarNode {
		return def
	}
	return v.node.Value
}

// list are the elements of a sequence.
func (v *value) list() []*value {
	if !v.there() || v.node.Kind != yaml.SequenceNode {
		return nil
	}
	var list []*value
	for i, n := range v.node.Content {
		list = append(list, newValue(fmt.Sprintf("%s[%d]", v.path, i), n))
	}
	return list
}

// words are the texts of a sequence, or one text.
func (v *value) words() []string {
	if s := v.text(""); s != "" {
		return []string{s}
	}
	var list []string
	for _, e := range v.list() {
		list = append(list, e.text(""))
	}
	return list
}

// texts are the texts of a mapping.
func (c *converter) texts(v *value) map[string]string {
	if !v.mapping() {
		return nil
	}
	m := map[string]string{}
	for i := 0; i+1 < len(v.node.Content); i += 2 {
		m[v.node.Content[i].Value] = v.node.Content[i+1].Value
	}
	return m
}

// whole is a whole number, or def where nothing stands.
func (c *converter) whole(v *value, def int) int {
	s := v.text("")
	if s == "" {
		return def
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		c.fail(v, sheaf.Invalid, "write a whole number", "%q is no whole number", s)
	}
	return n
}

// oneOf reports whether s is one of the words, whatever its case.
func oneOf(s string, words ...string) bool {
	return slices.ContainsFunc(words, func(w string) bool { return strings.EqualFold(s, w) })
}
