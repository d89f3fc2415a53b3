package sheaf

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Range is the partitions First to Last, both included.
type Range struct{ First, Last int }

// Ranges are disjoint ranges in ascending order, never adjacent. The text form
// is "3,7-9", and so is the JSON form.
type Ranges []Range

// Add appends index i, which must be greater than every index before it.
func (r Ranges) Add(i int) Ranges { return r.AddRange(i, i) }

// AddRange appends first..last, which must lie after everything before it.
func (r Ranges) AddRange(first, last int) Ranges {
	if n := len(r); n > 0 {
		if first <= r[n-1].Last {
			panic(fmt.Sprintf("sheaf: range %d-%d added behind %d", first, last, r[n-1].Last))
		}
		if r[n-1].Last+1 == first {
			r[n-1].Last = last
			return r
		}
	}
	return append(r, Range{first, last})
}

// Len is the number of indexes.
func (r Ranges) Len() int {
	n := 0
	for _, x := range r {
		n += x.Last - x.First + 1
	}
	return n
}

// Union is what is in r or in o, which may be in any order and overlap. Neither is changed.
func (r Ranges) Union(o Ranges) Ranges {
	return append(append(make(Ranges, 0, len(r)+len(o)), r...), o...).normal()
}

// Contains reports whether i is in r.
func (r Ranges) Contains(i int) bool {
	for _, x := range r {
		if i >= x.First && i <= x.Last {
			return true
		}
	}
	return false
}

// String is the form "3,7-9".
func (r Ranges) String() string {
	var b strings.Builder
	for i, x := range r {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.Itoa(x.First))
		if x.Last > x.First {
			b.WriteByte('-')
			b.WriteString(strconv.Itoa(x.Last))
		}
	}
	return b.String()
}

// ParseRanges reads "3,7-9": whole numbers from 0, in any order, overlaps allowed.
func ParseRanges(s string) (Ranges, error) {
	var r Ranges
	for _, part := range strings.Split(s, ",") {
		a, b, two := strings.Cut(strings.TrimSpace(part), "-")
		first, err := strconv.Atoi(a)
		last := first
		if err == nil && two {
			last, err = strconv.Atoi(b)
		}
		if err != nil || first < 0 || last < first || last >= MaxPartitions {
			return nil, &Error{Class: Invalid, Msg: fmt.Sprintf("%q is no list of partitions", s), Hint: `write numbers and ranges, as in "3,7-9"`}
		}
		r = append(r, Range{first, last})
	}
	return r.normal(), nil
}

// MarshalJSON writes the text form.
func (r Ranges) MarshalJSON() ([]byte, error) { return json.Marshal(r.String()) }

// UnmarshalJSON reads the text form.
func (r *Ranges) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	if s == "" {
		*r = nil
		return nil
	}
	v, err := ParseRanges(s)
	*r = v
	return err
}

// normal sorts r and joins what overlaps or touches.
func (r Ranges) normal() Ranges {
	slices.SortFunc(r, func(a, b Range) int { return a.First - b.First })
	out := r[:0]
	for _, x := range r {
		if n := len(out); n > 0 && x.First <= out[n-1].Last+1 {
			out[n-1].Last = max(out[n-1].Last, x.Last)
			continue
		}
		out = append(out, x)
	}
	return out
}
