package sheaf

import "errors"

// Class says what kind of failure an error is, apart from its message. It
// alone decides the HTTP status and the exit code.
type Class string

// The classes. An error without one is Internal.
const (
	Internal    Class = "internal"      // a fault of ours
	Invalid     Class = "invalid"       // the input is wrong, and will stay wrong
	NotFound    Class = "not_found"     // no such thing, or not readable by the caller
	Conflict    Class = "conflict"      // refused in the present state
	NotLeader   Class = "not_leader"    // asked a server that does not lead
	Unavailable Class = "unavailable"   // may work when tried again
	Denied      Class = "denied"        // not allowed
	NoIdentity  Class = "no_identity"   // not known who asks: no token, or one that is not valid
	TooLarge    Class = "too_large"     // above a limit of size
	Unsupported Class = "not_supported" // understood, and not supported in this version
	TimedOut    Class = "timed_out"     // a deadline passed
	TooMany     Class = "too_many"      // more at once than a limit allows; later it may work
)

// Error is an error with its class and, for mistakes of a user, the place, the
// limit and the way out.
type Error struct {
	Class Class  `json:"code"`
	Msg   string `json:"detail"`
	Field string `json:"field,omitempty"` // option, argument or JSON path
	Limit string `json:"limit,omitempty"` // the bound that was passed, with its unit
	Hint  string `json:"hint,omitempty"`  // what to do instead
	Err   error  `json:"-"`               // the cause, if any
}

// Error is the message, with the cause and the limit behind it.
func (e *Error) Error() string {
	s := e.Msg
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	if e.Limit != "" {
		s += " (limit " + e.Limit + ")"
	}
	return s
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// ClassOf is the class of err: that of the first [Error] in its chain, else Internal.
func ClassOf(err error) Class {
	var e *Error
	if errors.As(err, &e) {
		return e.Class
	}
	return Internal
}
