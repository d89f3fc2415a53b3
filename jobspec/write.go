package jobspec

import (
	"bytes"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/zclconf/go-cty/cty"

	"github.com/sheaf-run/agent/sheaf"
)

// Write gives a complete job as HCL, without what is a default. Parsing it
// gives the same job, where its strings are in NFC (HCL makes them so).
func Write(job *sheaf.Job) []byte {
	w := &writer{}
	w.job(job)
	return hclwrite.Format(w.out.Bytes())
}

// writer writes blocks and arguments. A block in which nothing was written is
// left out, unless it has a name.
type writer struct {
	out     bytes.Buffer
	pending []string // headers of blocks in which nothing was written yet
	depth   int
}

func (w *writer) flush() {
	for _, h := range w.pending {
		if h != "" && !bytes.HasSuffix(w.out.Bytes(), []byte("{\n")) && w.out.Len() > 0 {
			w.out.WriteByte('\n')
		}
		w.out.WriteString(h)
	}
	w.pending = w.pending[:0]
}

// open begins a block. Headers wait until something is in it.
func (w *writer) open(kind, label string) {
	if label != "" {
		kind += " " + quote(label)
	}
	w.pending = append(w.pending, kind+" {\n")
	if label != "" {
		w.flush()
	}
	w.depth++
}

func (w *writer) close() {
	w.depth--
	if n := len(w.pending); n > 0 {
		w.pending = w.pending[:n-1]
		return
	}
	w.out.WriteString("}\n")
}

func (w *writer) arg(name, value string) {
	w.flush()
	fmt.Fprintf(&w.out, "%s = %s\n", name, value)
}

func (w *writer) text(name, value, def string) {
	if value != def {
		w.arg(name, quote(value))
	}
}

func (w *writer) whole(name string, value, def int) {
	if value != def {
		w.arg(name, strconv.Itoa(value))
	}
}

func (w *writer) flag(name string, value, def bool) {
	if value != def {
		w.arg(name, strconv.FormatBool(value))
	}
}

func (w *writer) duration(name string, value, def sheaf.Duration) {
	if value != def {
		w.arg(name, quote(value.String()))
	}
}

func (w *writer) size(name string, value, def sheaf.Size) {
	if value != def {
		w.arg(name, quote(value.String()))
	}
}

func (w *writer) threshold(name string, t sheaf.Threshold, always bool) {
	switch {
	case t.Percent > 0:
		w.arg(name, quote(t.String()))
	case t.Count != 0 || always:
		w.arg(name, t.String())
	}
}

func (w *writer) texts(name string, list []string) {
	if list == nil {
		return
	}
	var q []string
	for _, s := range list {
		q = append(q, quote(s))
	}
	w.arg(name, "["+strings.Join(q, ", ")+"]")
}

func (w *writer) wholes(name string, list []int) {
	var q []string
	for _, n := range list {
		q = append(q, strconv.Itoa(n))
	}
	w.arg(name, "["+strings.Join(q, ", ")+"]")
}

func (w *writer) textMap(name string, m map[string]string, quoteValue func(string) string) {
	if m == nil {
		return
	}
	var b strings.Builder
	b.WriteString("{\n")
	for _, key := range slices.Sorted(maps.Keys(m)) {
		fmt.Fprintf(&b, "%s = %s\n", mapKey(key), quoteValue(m[key]))
	}
	b.WriteString("}")
	w.arg(name, b.String())
}

// any is a config value as HCL.
func (w *writer) any(v any) string {
	switch v := v.(type) {
	case string:
		return quoteTemplate(v)
	case bool:
		return strconv.FormatBool(v)
	case float64:
		return number(v)
	case []any:
		var q []string
		for _, x := range v {
			q = append(q, w.any(x))
		}
		return "[" + strings.Join(q, ", ") + "]"
	case map[string]any:
		var b strings.Builder
		b.WriteString("{\n")
		for _, key := range slices.Sorted(maps.Keys(v)) {
			fmt.Fprintf(&b, "%s = %s\n", mapKey(key), w.any(v[key]))
		}
		b.WriteString("}")
		return b.String()
	}
	return "null"
}

func number(f float64) string { return strconv.FormatFloat(f, 'g', -1, 64) }

var plainKey = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

func mapKey(s string) string {
	if plainKey.MatchString(s) && s != "for" && s != "null" && s != "true" && s != "false" && s != "if" {
		return s
	}
	return quote(s)
}

// quote is a literal string.
func quote(s string) string {
	return string(hclwrite.TokensForValue(cty.StringVal(s)).Bytes())
}

// quoteTemplate is a string in the form of [sheaf.Expand], as HCL: its
// references stay, all else is literal.
func quoteTemplate(s string) string {
	var b, text strings.Builder
	flush := func() {
		q := quote(text.String())
		b.WriteString(q[1 : len(q)-1])
		text.Reset()
	}
	b.WriteByte('"')
	for {
		i := strings.Index(s, "${")
		if i < 0 {
			text.WriteString(s)
			break
		}
		if i > 0 && s[i-1] == '$' {
			text.WriteString(s[:i-1] + "${")
			s = s[i+2:]
			continue
		}
		name, rest, closed := strings.Cut(s[i+2:], "}")
		if !closed {
			text.WriteString(s)
			break
		}
		text.WriteString(s[:i])
		flush()
		b.WriteString("${" + name + "}")
		s = rest
	}
	flush()
	b.WriteByte('"')
	return b.String()
}
