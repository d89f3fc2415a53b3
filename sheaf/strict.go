package sheaf

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// maxJSONDepth is deeper than any form of ours goes; encoding/json alone allows 10,000.
const maxJSONDepth = 64

// DecodeStrict reads one JSON value into v and refuses what encoding/json lets
// pass: unknown keys, keys given twice, invalid UTF-8, nesting beyond 64, and
// anything behind the value. Errors are Invalid and name the key.
func DecodeStrict(data []byte, v any) error {
	if !utf8.Valid(data) {
		return &Error{Class: Invalid, Msg: "the JSON is not valid UTF-8"}
	}
	if err := checkKeys(data); err != nil {
		return err
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return decodeError(err)
	}
	return nil
}

// checkKeys walks the tokens once.
func checkKeys(data []byte) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	type level struct {
		keys map[string]bool // nil in an array
		key  string
		next bool // a key comes next
	}
	var stack []level
	for {
		tok, err := dec.Token()
		if errors.Is(err, io.EOF) && len(stack) == 0 {
			return nil
		}
		if err != nil {
			return decodeError(err)
		}
		if top := len(stack) - 1; top >= 0 && stack[top].keys != nil && stack[top].next {
			if key, ok := tok.(string); ok {
				if stack[top].keys[key] {
					return &Error{Class: Invalid, Field: key, Msg: fmt.Sprintf("key %q is given twice", key), Hint: "give it once"}
				}
				stack[top].keys[key], stack[top].key, stack[top].next = true, key, false
				continue
			}
		}
		switch tok {
		case json.Delim('{'):
			stack = append(stack, level{keys: map[string]bool{}, next: true})
		case json.Delim('['):
			stack = append(stack, level{})
		case json.Delim('}'), json.Delim(']'):
			stack = stack[:len(stack)-1]
		}
		if len(stack) > maxJSONDepth {
			return &Error{Class: Invalid, Msg: "the JSON is nested too deeply", Limit: fmt.Sprint(maxJSONDepth)}
		}
		if d, ok := tok.(json.Delim); !ok || d == '}' || d == ']' {
			if len(stack) == 0 {
				if _, err := dec.Token(); !errors.Is(err, io.EOF) {
					return &Error{Class: Invalid, Msg: "something stands behind the JSON value"}
				}
				return nil
			}
			stack[len(stack)-1].next = true
		}
	}
}

func decodeError(err error) error {
	var ours *Error
	if errors.As(err, &ours) {
		return ours
	}
	var kind *json.UnmarshalTypeError
	if errors.As(err, &kind) {
		return &Error{Class: Invalid, Field: kind.Field, Msg: fmt.Sprintf("%s: a %s cannot stand here", kind.Field, kind.Value), Hint: "give a " + kind.Type.String()}
	}
	if key, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		key = strings.Trim(key, `"`)
		return &Error{Class: Invalid, Field: key, Msg: fmt.Sprintf("key %q is unknown", key)}
	}
	return &Error{Class: Invalid, Msg: "malformed JSON", Err: err}
}
