package sheaf

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Threshold is a number of partitions, either counted or as a share of all.
// In JSON and HCL it is a whole number, or a string such as "1%".
type Threshold struct {
	Count   int     // partitions, where Percent is 0
	Percent float64 // 0 < Percent <= 100
}

// Of is the threshold for a run of n partitions. A share is rounded down.
func (t Threshold) Of(n int) int {
	if t.Percent > 0 {
		return int(math.Floor(float64(n) * t.Percent / 100))
	}
	return t.Count
}

// ParseThreshold reads "12" or "2.5%".
func ParseThreshold(s string) (Threshold, error) {
	bad := &Error{Class: Invalid, Msg: fmt.Sprintf("%q is neither a count nor a share", s), Hint: `write a whole number of partitions, or a share such as "1%"`}
	if p, ok := strings.CutSuffix(strings.TrimSpace(s), "%"); ok {
		v, err := strconv.ParseFloat(strings.TrimSpace(p), 64)
		if err != nil || !(v >= 0 && v <= 100) {
			return Threshold{}, bad
		}
		return Threshold{Percent: v}, nil
	}
	v, err := strconv.Atoi(strings.TrimSpace(s))
	if err != nil || v < 0 {
		return Threshold{}, bad
	}
	return Threshold{Count: v}, nil
}

// String is the form that ParseThreshold reads.
func (t Threshold) String() string {
	if t.Percent > 0 {
		return strconv.FormatFloat(t.Percent, 'f', -1, 64) + "%"
	}
	return strconv.Itoa(t.Count)
}

// MarshalJSON writes a number, or a string for a share.
func (t Threshold) MarshalJSON() ([]byte, error) {
	if t.Percent > 0 {
		return json.Marshal(t.String())
	}
	return json.Marshal(t.Count)
}

// UnmarshalJSON reads a number or a string.
func (t *Threshold) UnmarshalJSON(b []byte) error {
	s := string(b)
	if len(b) > 0 && b[0] == '"' {
		if err := json.Unmarshal(b, &s); err != nil {
			return err
		}
	}
	v, err := ParseThreshold(s)
	if err != nil {
		return err
	}
	*t = v
	return nil
}
