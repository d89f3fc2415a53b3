package drivers

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/sheaf-run/agent/sheaf"
)

// DecodeConfig reads a task's config into a struct. Unknown arguments and
// wrong types are errors of class sheaf.Invalid that name driver and argument.
func DecodeConfig(driver string, config []byte, into any) error {
	if len(bytes.TrimSpace(config)) == 0 {
		config = []byte("{}")
	}
	d := json.NewDecoder(bytes.NewReader(config))
	d.DisallowUnknownFields()
	err := d.Decode(into)
	if err == nil {
		return nil
	}
	field := "config"
	if t, ok := errors.AsType[*json.UnmarshalTypeError](err); ok && t.Field != "" {
		field += "." + t.Field
	}
	return &sheaf.Error{
		Class: sheaf.Invalid, Field: field, Err: err,
		Msg:  fmt.Sprintf("config of driver %q cannot be read", driver),
		Hint: "see the driver's arguments in the jobspec reference",
	}
}
