package match

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/sheaf-run/agent/sheaf"
)

// condition is a constraint or an affinity, read once. Most nodes share few values of a
// property, so what a pair of values came to is remembered.
type condition struct {
	sheaf.Constraint
	property string
	test     func(has, wants string) bool
	fixed    bool // the value names nothing of the node
	seen     map[[2]string]bool
}

func compile(c sheaf.Constraint) condition {
	x := condition{Constraint: c, seen: map[[2]string]bool{}}
	x.property = strings.TrimSuffix(strings.TrimPrefix(c.Attribute, "${"), "}")
	x.fixed = !strings.Contains(c.Value, "${")
	versions := strings.HasSuffix(x.property, "version")
	switch c.Operator {
	case "regexp":
		x.test = matches
	case "set_contains":
		x.test = contains
	default:
		test, ok := comparisons[c.Operator]
		if !ok {
			test = func(int) bool { return false } // jobspec refuses it
		}
		x.test = func(has, wants string) bool { return test(compare(has, wants, versions)) }
	}
	return x
}

// comparisons are the operators that a comparison decides.
var comparisons = map[string]func(order int) bool{
	"=":  func(o int) bool { return o == 0 },
	"!=": func(o int) bool { return o != 0 },
	"<":  func(o int) bool { return o < 0 },
	"<=": func(o int) bool { return o <= 0 },
	">":  func(o int) bool { return o > 0 },
	">=": func(o int) bool { return o >= 0 },
}

// matches reports whether a regular expression is found in a value. A malformed one, which
// jobspec refuses, is found in none.
func matches(has, pattern string) bool {
	re, err := regexp.Compile(pattern)
	return err == nil && re.MatchString(has)
}

// contains reports whether a list parted by commas holds all of another.
func contains(has, wants string) bool {
	set := map[string]bool{}
	for x := range strings.SplitSeq(has, ",") {
		set[strings.TrimSpace(x)] = true
	}
	for x := range strings.SplitSeq(wants, ",") {
		if !set[strings.TrimSpace(x)] {
			return false
		}
	}
	return true
}

// wants is the value that the node's property is held against.
func (c *condition) wants(n *sheaf.Node) (string, bool) {
	if c.fixed {
		return c.Value, true
	}
	v, err := sheaf.Expand(c.Value, n.Property)
	return v, err == nil
}

// met reports whether the node meets the condition. A property that it lacks is
// different from everything, and otherwise nothing.
func (c *condition) met(n *sheaf.Node) bool {
	has, ok := n.Property(c.property)
	if !ok {
		return c.Operator == "!="
	}
	wants, ok := c.wants(n)
	if !ok {
		return false
	}
	k := [2]string{has, wants}
	met, known := c.seen[k]
	if !known {
		met = c.test(has, wants)
		c.seen[k] = met
	}
	return met
}

// unmet says why the node does not meet the condition.
func (c *condition) unmet(n *sheaf.Node) string {
	has, ok := n.Property(c.property)
	if !ok {
		return fmt.Sprintf("has no %s, and the job asks for %s %s", c.property, c.Operator, quote(c.Value))
	}
	return fmt.Sprintf("%s is %s, and the job asks for %s %s", c.property, quote(has), c.Operator, quote(c.Value))
}

// maxQuoted is how much of a value a reason repeats.
const maxQuoted = 60

func quote(s string) string {
	if len(s) > maxQuoted {
		s = strings.ToValidUTF8(s[:maxQuoted], "") + "…"
	}
	return fmt.Sprintf("%q", s)
}
