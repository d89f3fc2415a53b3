package sheaf

import (
	"fmt"
	"strings"
)

// Strings of a job's config, env and constraints may hold run-time references
// such as ${partition.index}. In a Job, "${name}" is a reference and "$${" is
// a plain "${": jobspec writes this form, and Expand reads it.

// References are the names that may stand in ${…}; names below "node.attr."
// are open.
var References = []string{"partition.index", "partition.count", "job.id", "job.name", "execution.id", "attempt", "node.name"}

// IsReference reports whether name may stand in ${…}.
func IsReference(name string) bool {
	for _, r := range References {
		if r == name {
			return true
		}
	}
	rest, ok := strings.CutPrefix(name, "node.attr.")
	return ok && rest != ""
}

// EscapeTemplate makes s literal: Expand gives it back unchanged.
func EscapeTemplate(s string) string { return strings.ReplaceAll(s, "${", "$${") }

// TemplateReferences lists the names that s refers to, in order.
func TemplateReferences(s string) ([]string, error) {
	var names []string
	_, err := Expand(s, func(name string) (string, bool) {
		names = append(names, name)
		return "", true
	})
	return names, err
}

// Expand replaces each ${name} of s by what lookup gives for it. An unknown
// name or an unclosed reference is an error.
func Expand(s string, lookup func(name string) (string, bool)) (string, error) {
	if !strings.Contains(s, "${") {
		return s, nil
	}
	var b strings.Builder
	for {
		i := strings.Index(s, "${")
		if i < 0 {
			b.WriteString(s)
			return b.String(), nil
		}
		if i > 0 && s[i-1] == '$' {
			b.WriteString(s[:i-1])
			b.WriteString("${")
			s = s[i+2:]
			continue
		}
		b.WriteString(s[:i])
		name, rest, ok := strings.Cut(s[i+2:], "}")
		if !ok {
			return "", &Error{Class: Invalid, Msg: fmt.Sprintf("reference %q is not closed", s[i:]), Hint: "close it with }, or write $${ for a plain ${"}
		}
		v, ok := lookup(name)
		if !ok {
			return "", &Error{Class: Invalid, Msg: fmt.Sprintf("unknown reference ${%s}", name), Hint: "known: " + strings.Join(References, ", ") + ", node.attr.…; write $${ for a plain ${"}
		}
		b.WriteString(v)
		s = rest
	}
}
