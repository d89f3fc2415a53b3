package sheaf

import (
	"encoding/json"
	"fmt"
	"time"
)

// Duration is a time.Duration whose JSON form is Go's notation, "1m30s".
type Duration time.Duration

// String is Go's notation.
func (d Duration) String() string { return time.Duration(d).String() }

// MarshalJSON writes Go's notation.
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(d.String()) }

// UnmarshalJSON reads Go's notation; a bare number is refused, since its unit is anyone's guess.
func (d *Duration) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return &Error{Class: Invalid, Msg: fmt.Sprintf("duration %s has no unit", b), Hint: `write it with its unit, as in "10m"`}
	}
	v, err := time.ParseDuration(s)
	if err != nil {
		return &Error{Class: Invalid, Msg: fmt.Sprintf("%q is no duration", s), Hint: `write a number and a unit, as in "90s" or "10m"`}
	}
	*d = Duration(v)
	return nil
}
