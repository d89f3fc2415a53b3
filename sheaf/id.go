package sheaf

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// MaxNameLen is the longest a name may be, in bytes.
const MaxNameLen = 64

// RunID identifies one run of a job. It is chosen by whoever submits, so that
// a submission that is repeated stays one run. It has the form of a name.
type RunID string

// NodeID identifies a client across restarts of its agent.
type NodeID string

// ExecutionID identifies one attempt at one partition of one run; see
// [NewExecutionID].
type ExecutionID string

// NewExecutionID is the ID of an attempt at a partition: the run, the
// partition and the attempt joined by dots, as in "thumbs-1f3a.17.2". Attempts are never
// reused within a run, so neither is the ID.
func NewExecutionID(run RunID, partition int, attempt uint32) ExecutionID {
	return ExecutionID(string(run) + "." + strconv.Itoa(partition) + "." + strconv.FormatUint(uint64(attempt), 10))
}

// CheckName reports why s is no name: names begin with an ASCII letter or
// digit, go on with letters, digits, '.', '_' and '-', and are at most
// [MaxNameLen] bytes long. what says what is named ("job", "input").
func CheckName(what, s string) error {
	switch {
	case s == "":
		return &Error{Class: Invalid, Field: what, Msg: what + " name is empty", Hint: "give it a name that begins with a letter or digit"}
	case len(s) > MaxNameLen:
		return &Error{Class: Invalid, Field: what, Msg: fmt.Sprintf("%s name %q is %d bytes long", what, s[:24]+"…", len(s)), Limit: strconv.Itoa(MaxNameLen), Hint: "shorten it"}
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if alnum || i > 0 && strings.IndexByte("._-", c) >= 0 {
			continue
		}
		r, _ := utf8.DecodeRuneInString(s[i:])
		return &Error{Class: Invalid, Field: what, Msg: fmt.Sprintf("%s name %q may not hold %+q at byte %d", what, s, r, i), Hint: "names begin with a letter or digit and go on with [a-zA-Z0-9._-]"}
	}
	return nil
}
