package jobspec

import (
	"fmt"
	"math/big"
	"strings"
	"time"

	"github.com/zclconf/go-cty/cty"

	"github.com/sheaf-run/agent/sheaf"
)

// duration reads a duration in Go's notation.
func (b *block) duration(name string, to *sheaf.Duration) {
	v, ok := b.value(name)
	if !ok {
		return
	}
	if v.Type() != cty.String {
		b.wrong(name, fmt.Sprintf("%s is %s, a duration needs quotes and a unit", name, show(v)), "", name+` = "90s", or "10m", or "2h"`)
		return
	}
	d, err := parseDuration(name, v.AsString())
	if err != nil {
		err.Field = b.field(name)
		b.report(b.at[err.Field], err)
		return
	}
	*to = d
}

// parseDuration reads Go's notation, with the way out of what people write instead.
func parseDuration(name, s string) (sheaf.Duration, *sheaf.Error) {
	d, err := time.ParseDuration(s)
	if err == nil {
		return sheaf.Duration(d), nil
	}
	p := &sheaf.Error{Class: sheaf.Invalid, Msg: fmt.Sprintf("%s is %s, which is no duration", name, quoted(s)), Hint: `write a number and a unit, as in "90s", "10m" or "2h"`}
	t := strings.ToLower(strings.TrimSpace(s))
	switch digits := strings.TrimLeft(t, "0123456789. "); {
	case t != "" && digits == "":
		p.Msg = fmt.Sprintf("%s is %s, which has no unit", name, quoted(s))
		p.Hint = fmt.Sprintf("write \"%ss\" for seconds, \"%sm\" for minutes or \"%sh\" for hours", t, t, t)
	case t != digits && (strings.HasPrefix(digits, "d") || strings.HasPrefix(digits, "w") || strings.HasPrefix(digits, "y") || strings.HasPrefix(digits, "mo")):
		p.Limit = hours(MaxTimeout)
		p.Hint = `the units are h, m, s and ms; a day is "24h"`
	}
	return 0, p
}

// hours is d in the notation that Go reads, without minutes and seconds that are 0.
func hours(d time.Duration) string {
	s := d.String()
	s = strings.TrimSuffix(s, "m0s") + map[bool]string{true: "m"}[strings.HasSuffix(s, "m0s")]
	return strings.TrimSuffix(s, "h0m") + map[bool]string{true: "h"}[strings.HasSuffix(s, "h0m")]
}

// size reads a size with a unit, or a bare number of units of bare bytes.
func (b *block) size(name string, bare sheaf.Size, to *sheaf.Size) {
	v, ok := b.value(name)
	if !ok {
		return
	}
	if v.Type() == cty.String {
		s, err := parseSize(name, b.field(name), v.AsString(), bare)
		if err != nil {
			b.report(b.at[err.Field], err)
			return
		}
		*to = s
		return
	}
	f, limit := asNumber(v), sizeSpanOf(b.field(name)).String()
	if f == nil {
		b.wrong(name, fmt.Sprintf("%s is %s, not a size", name, show(v)), limit, `write it with its unit, as in "512MiB" or "1GB"`)
		return
	}
	bytes := new(big.Float).Mul(f, big.NewFloat(float64(bare)))
	n, accuracy := bytes.Int64()
	switch {
	case f.Sign() < 0:
		b.wrong(name, fmt.Sprintf("%s is %s, which is negative", name, show(v)), limit, `write a size, as in "512MiB"`)
	case !bytes.IsInt():
		b.wrong(name, fmt.Sprintf("%s is %s, not a whole number of bytes", name, show(v)), limit, `write it with its unit, as in "512MiB"`)
	case accuracy != big.Exact:
		b.wrong(name, fmt.Sprintf("%s is %s%s", name, show(v), strings.TrimPrefix(bare.String(), "1")), limit, "write a smaller size")
	default:
		*to = sheaf.Size(n)
	}
}

// parseSize reads a size with its unit. bare is what a number without one would count here,
// 0 where it is refused.
func parseSize(name, path, s string, bare sheaf.Size) (sheaf.Size, *sheaf.Error) {
	v, err := sheaf.ParseSize(s)
	if err == nil {
		return v, nil
	}
	p := placed(path, err)
	p.Msg, p.Limit = name+": "+p.Msg, sizeSpanOf(path).String()
	if t := strings.TrimSpace(s); t != "" && strings.Trim(t, "0123456789.") == "" && bare > 0 {
		p.Hint = fmt.Sprintf(`write "%sMiB", or the bare number %s for %s`, t, t, map[bool]string{true: "MiB", false: "bytes"}[bare > 1])
	} else if p.Hint == "" {
		p.Hint = `write a size, as in "512MiB" or "1GB"`
	}
	return 0, p
}
