package sheaf

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Size is a number of bytes. Its JSON form is a string with a unit,
// "512MiB" or "1GB"; powers of 1024 and of 1000 are both understood.
type Size int64

var sizeUnits = []struct {
	suffix string
	factor float64
}{
	{"kib", 1 << 10}, {"mib", 1 << 20}, {"gib", 1 << 30}, {"tib", 1 << 40}, {"pib", 1 << 50}, {"eib", 1 << 60},
	{"kb", 1e3}, {"mb", 1e6}, {"gb", 1e9}, {"tb", 1e12}, {"pb", 1e15}, {"eb", 1e18}, {"b", 1},
}

// ParseSize reads "512MiB", "1GB", "1.5 GiB" or "10B". A number without a
// unit is refused: what it means depends on where it stands, and the caller knows.
func ParseSize(s string) (Size, error) {
	t := strings.ToLower(strings.TrimSpace(s))
	for _, u := range sizeUnits {
		num, ok := strings.CutSuffix(t, u.suffix)
		if !ok {
			continue
		}
		v, err := strconv.ParseFloat(strings.TrimSpace(num), 64)
		if err != nil || math.IsNaN(v) {
			break
		}
		if v < 0 {
			return 0, &Error{Class: Invalid, Msg: fmt.Sprintf("size %q is negative", s)}
		}
		if v*u.factor >= math.MaxInt64 {
			return 0, &Error{Class: Invalid, Msg: fmt.Sprintf("size %q is too large", s), Limit: "8EiB"}
		}
		return Size(v * u.factor), nil
	}
	return 0, &Error{Class: Invalid, Msg: fmt.Sprintf("%q is no size", s), Hint: `write a number and a unit, as in "512MiB" or "1GB"`}
}

// String is the shortest exact form in binary units.
func (s Size) String() string {
	v, i := int64(s), 0
	for i < len(binaryUnits)-1 && v != 0 && v%1024 == 0 {
		v /= 1024
		i++
	}
	return strconv.FormatInt(v, 10) + binaryUnits[i]
}

// Rounded is the size as people read it: with one decimal in the largest binary
// unit of which there is at least one.
func (s Size) Rounded() string {
	v, i := float64(s), 0
	for ; i < len(binaryUnits)-1 && math.Abs(v) >= 1024; i++ {
		v /= 1024
	}
	return strings.TrimSuffix(strconv.FormatFloat(v, 'f', 1, 64), ".0") + binaryUnits[i]
}

var binaryUnits = [...]string{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}

// MarshalJSON writes the exact form with its unit.
func (s Size) MarshalJSON() ([]byte, error) { return json.Marshal(s.String()) }

// UnmarshalJSON reads a string with a unit.
func (s *Size) UnmarshalJSON(b []byte) error {
	var t string
	if err := json.Unmarshal(b, &t); err != nil {
		return &Error{Class: Invalid, Msg: fmt.Sprintf("size %s has no unit", b), Hint: `write it as a string with its unit, as in "512MiB"`}
	}
	v, err := ParseSize(t)
	if err != nil {
		return err
	}
	*s = v
	return nil
}
