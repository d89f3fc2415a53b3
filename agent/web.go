package agent

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/sheaf-run/agent/data/source/https"
	"github.com/sheaf-run/agent/sheaf"
)

// host reads the files that the block names.
func (c HTTPSConfig) host() (https.Host, error) {
	field := fmt.Sprintf("client.https %q", c.Pattern)
	h := https.Host{Pattern: c.Pattern, Private: c.Private}
	if c.CAFile != "" {
		text, err := os.ReadFile(c.CAFile)
		if err != nil {
			return h, fmt.Errorf("%s: read the authorities: %w", field, err)
		}
		h.CAs = text
	}
	if c.HeaderFile == "" {
		return h, nil
	}
	text, err := os.ReadFile(c.HeaderFile)
	if err != nil {
		return h, fmt.Errorf("%s: read the headers: %w", field, err)
	}
	h.Headers = map[string]string{}
	n := 0
	for line := range strings.Lines(string(text)) {
		n++
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		name, value, ok := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		if !ok || !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(value) { // the value is never told
			return h, &sheaf.Error{Class: sheaf.Invalid, Field: field + ".header_file", Msg: fmt.Sprintf("line %d of %s is no header", n, c.HeaderFile), Hint: "write Name: value, a line each"}
		}
		h.Headers[name] = value
	}
	return h, nil
}
