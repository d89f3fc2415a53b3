package sandbox

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/sheaf-run/agent/sheaf"
)

// values are what run-time references stand for in one execution.
type values struct {
	index, execution, attempt string
}

// template is a text with run-time references, taken apart once for a run:
// what is the same for all of its executions is filled in already.
type template struct {
	parts []part
	size  int // bytes of the literal parts
}

// part is a literal text, or one of the three references that differ between
// executions.
type part struct {
	text string
	ref  reference
}

type reference uint8

const (
	literal reference = iota
	refIndex
	refExecution
	refAttempt
)

// mark frames a reference while a text is taken apart. No text holds it:
// neither JSON nor a variable may hold a NUL.
const mark = "\x00"

// compile takes s apart. Fixed gives the value of a reference that is the same
// for the whole run.
func compile(s string, fixed func(name string) (string, bool)) (template, error) {
	if strings.Contains(s, mark) {
		return template{}, &sheaf.Error{Class: sheaf.Invalid, Msg: fmt.Sprintf("text %q holds a NUL byte", s)}
	}
	expanded, err := sheaf.Expand(s, func(name string) (string, bool) {
		switch name {
		case "partition.index", "execution.id", "attempt":
			return mark + name + mark, true
		}
		return fixed(name)
	})
	if err != nil {
		return template{}, err
	}
	var t template
	for i, text := range strings.Split(expanded, mark) {
		p := part{text: text}
		if i%2 == 1 {
			p = part{ref: map[string]reference{"partition.index": refIndex, "execution.id": refExecution, "attempt": refAttempt}[text]}
		} else if text == "" {
			continue
		}
		t.parts = append(t.parts, p)
		t.size += len(p.text)
	}
	return t, nil
}

// constant reports whether t is the same in every execution.
func (t template) constant() bool {
	return len(t.parts) == 0 || len(t.parts) == 1 && t.parts[0].ref == literal
}

// appendTo appends t with its references filled in.
func (t template) appendTo(b []byte, v *values) []byte {
	for _, p := range t.parts {
		switch p.ref {
		case literal:
			b = append(b, p.text...)
		case refIndex:
			b = append(b, v.index...)
		case refExecution:
			b = append(b, v.execution...)
		case refAttempt:
			b = append(b, v.attempt...)
		}
	}
	return b
}

// compileJSON takes apart the JSON of a config. References stand only inside
// its strings, so what they become is escaped as a string's content is. The
// three that differ between executions are names and numbers and need none.
func compileJSON(text []byte, fixed func(name string) (string, bool)) (template, error) {
	return compile(string(text), func(name string) (string, bool) {
		v, ok := fixed(name)
		if !ok {
			return "", false
		}
		q, err := json.Marshal(v)
		if err != nil {
			return "", false
		}
		return string(q[1 : len(q)-1]), true
	})
}
