package match

import (
	"cmp"
	"strconv"
	"strings"

	"github.com/sheaf-run/agent/sheaf"
)

// compare orders two values: as numbers or sizes where both are, else as versions where both
// are, else as text. What is named a version is compared as one first: of the
// versions 6.9 and 6.10 the second is newer, of the numbers it is less.
func compare(a, b string, versions bool) int {
	orders := [...]func(a, b string) (int, bool){asNumbers, asVersions}
	if versions {
		orders[0], orders[1] = orders[1], orders[0]
	}
	for _, order := range orders {
		if o, ok := order(a, b); ok {
			return o
		}
	}
	return strings.Compare(a, b)
}

func asNumbers(a, b string) (int, bool) {
	x, okX := number(a)
	y, okY := number(b)
	return cmp.Compare(x, y), okX && okY
}

// number reads a number, or a size with its unit, as its bytes.
func number(s string) (float64, bool) {
	s = strings.TrimSpace(s)
	if s == "" || (s[0] < '0' || s[0] > '9') && s[0] != '-' && s[0] != '+' && s[0] != '.' {
		return 0, false // ParseFloat takes "inf" and "nan"
	}
	if v, err := strconv.ParseFloat(s, 64); err == nil {
		return v, true
	}
	v, err := sheaf.ParseSize(s)
	return float64(v), err == nil
}

// version is the numbers of a version, and what follows a hyphen where that names
// something before it: "1.2.0-rc1" comes before "1.2.0", and a kernel's
// "6.1.0-28-amd64" is 6.1.0.
type version struct {
	numbers []int
	before  string
}

// maxNumbers of a version; more is something else.
const maxNumbers = 6

// earlier are the words that name what comes before a version.
var earlier = [...]string{"alpha", "beta", "dev", "pre", "rc"}

func versionOf(s string) (version, bool) {
	s = strings.TrimPrefix(strings.TrimSpace(s), "v")
	end := strings.IndexAny(s, "-+~ ")
	rest := ""
	if end >= 0 {
		s, rest = s[:end], strings.ToLower(s[end+1:])
	}
	var v version
	for part := range strings.SplitSeq(s, ".") {
		n, err := strconv.ParseUint(part, 10, 31)
		if err != nil || len(v.numbers) == maxNumbers {
			return version{}, false
		}
		v.numbers = append(v.numbers, int(n))
	}
	for _, w := range earlier {
		if strings.HasPrefix(rest, w) {
			v.before = rest
		}
	}
	return v, true
}

func asVersions(a, b string) (int, bool) {
	x, okX := versionOf(a)
	y, okY := versionOf(b)
	if !okX || !okY {
		return 0, false
	}
	for i := range max(len(x.numbers), len(y.numbers)) {
		if o := cmp.Compare(at(x.numbers, i), at(y.numbers, i)); o != 0 {
			return o, true
		}
	}
	switch {
	case x.before == "" && y.before != "":
		return 1, true
	case x.before != "" && y.before == "":
		return -1, true
	}
	return strings.Compare(x.before, y.before), true
}

func at(n []int, i int) int {
	if i < len(n) {
		return n[i]
	}
	return 0
}
