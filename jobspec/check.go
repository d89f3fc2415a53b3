package jobspec

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sheaf-run/agent/sheaf"
)

// Check reports what is wrong with a complete job, whatever it came from: a
// [Diagnostics] whose Field is the JSON path, of class sheaf.Invalid, or
// sheaf.Unsupported where that is all. Where drivers is nil, the driver and its config are not checked.
func Check(job *sheaf.Job, drivers map[string]sheaf.ConfigSchema) error {
	var ds Diagnostics
	for _, p := range problems(job, drivers) {
		ds = append(ds, Diagnostic{Problem: p})
	}
	return ds.cut().orNil()
}

// checker collects what is wrong. The rules are its methods, each beside the
// block of the grammar that it is about.
type checker struct {
	drivers map[string]sheaf.ConfigSchema
	found   []*sheaf.Error
}

// problems are the mistakes of a job, what is invalid before what is not supported.
func problems(job *sheaf.Job, drivers map[string]sheaf.ConfigSchema) []*sheaf.Error {
	c := &checker{drivers: drivers}
	c.job(job)
	c.refuse(job)
	if b, err := json.Marshal(job); err != nil {
		c.bad("", "the job has no JSON form", "", "leave out values that are no text or number")
	} else if len(b) > MaxJob {
		c.bad("", fmt.Sprintf("the job is %s bytes long in its JSON form", grouped(int64(len(b)))), grouped(MaxJob)+" bytes", "move long scripts and lists into files and name these as inputs")
	}
	slices.SortStableFunc(c.found, func(a, b *sheaf.Error) int {
		return cmp.Compare(rank(a.Class), rank(b.Class))
	})
	return c.found
}

func rank(c sheaf.Class) int {
	if c == sheaf.Unsupported {
		return 1
	}
	return 0
}

// bad notes a mistake at a JSON path.
func (c *checker) bad(path, msg, limit, hint string) {
	c.found = append(c.found, &sheaf.Error{Class: sheaf.Invalid, Field: path, Msg: msg, Limit: limit, Hint: hint})
}

// name checks a name in the sense of [sheaf.CheckName].
func (c *checker) name(path, what, s string) {
	if err := sheaf.CheckName(what, s); err != nil {
		c.found = append(c.found, placed(path, err))
	}
}

// unique checks that a list's names differ.
func (c *checker) unique(path, what string, names []string) {
	seen := map[string]bool{}
	for i, n := range names {
		if seen[n] {
			c.bad(fmt.Sprintf("%s[%d].name", path, i), fmt.Sprintf("there are two %ss named %s", what, quoted(n)), "", "give one of them another name")
		}
		seen[n] = true
	}
}

// oneOf checks a value of an enumeration.
func (c *checker) oneOf(path, name, value string, allowed ...string) {
	if slices.Contains(allowed, value) {
		return
	}
	hint := `write ` + enumerate(allowed)
	if n := nearest(value, allowed); n != "" {
		hint = "did you mean " + quoted(n) + "? " + hint
	}
	c.bad(path, fmt.Sprintf("%s is %s", name, quoted(value)), "", hint)
}

// enumerate is "a", "b" or "c".
func enumerate(words []string) string {
	var q []string
	for _, w := range words {
		q = append(q, `"`+w+`"`)
	}
	if len(q) == 1 {
		return q[0]
	}
	return strings.Join(q[:len(q)-1], ", ") + " or " + q[len(q)-1]
}

// whole checks a whole number against its span.
func (c *checker) whole(path, name string, n int) {
	if s := spanOf(path); int64(n) < s.min || int64(n) > s.max {
		c.bad(path, fmt.Sprintf("%s is %d", name, n), s.String(), "write a whole number from "+s.String())
	}
}

// duration checks that d lies between min and max.
func (c *checker) duration(path, name string, d sheaf.Duration, min, max time.Duration) {
	if t := time.Duration(d); t < min || t > max {
		limit := hours(min) + " to " + hours(max)
		c.bad(path, fmt.Sprintf("%s is %s", name, hours(t)), limit, "write a duration of "+limit)
	}
}

// timeout checks a timeout where there is one.
func (c *checker) timeout(path string, d sheaf.Duration) {
	if d != 0 {
		c.duration(path, "timeout", d, time.Millisecond, MaxTimeout)
	}
}

// size checks a size against its span.
func (c *checker) size(path, name string, n sheaf.Size) {
	if s := sizeSpanOf(path); n < s.min || n > s.max {
		c.bad(path, fmt.Sprintf("%s is %s", name, n), s.String(), "write a size of "+s.String())
	}
}

// template checks the run-time references of a string.
func (c *checker) template(path, s string) {
	if strings.IndexByte(s, 0) >= 0 {
		c.bad(path, "the text holds a NUL character", "", "leave it out: no program can be given one")
		return
	}
	_, err := sheaf.Expand(s, func(name string) (string, bool) { return "", sheaf.IsReference(name) })
	if err != nil {
		c.found = append(c.found, placed(path, err))
	}
}

// text checks a string that a person or program reads as it is.
func (c *checker) text(path, name, s string) {
	if strings.IndexByte(s, 0) >= 0 {
		c.bad(path, name+" holds a NUL character", "", "leave it out")
	}
}

// placed is a mistake of the domain's, with the path where it stands.
func placed(path string, err error) *sheaf.Error {
	var found *sheaf.Error
	if !errors.As(err, &found) {
		return &sheaf.Error{Class: sheaf.Invalid, Field: path, Msg: err.Error()}
	}
	p := *found
	p.Field = path
	return &p
}
