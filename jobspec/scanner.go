package jobspec

import (
	"bytes"
	"encoding/json"
	"errors"
	"strconv"

	"github.com/sheaf-run/agent/sheaf"
)

// scanner walks over JSON that is known to be well formed.
type scanner struct {
	src []byte
	at  int
}

func (s *scanner) space() {
	for s.at < len(s.src) && bytes.IndexByte([]byte(" \t\r\n"), s.src[s.at]) >= 0 {
		s.at++
	}
}

// skip passes over one value.
func (s *scanner) skip() {
	depth := 0
	for {
		switch s.src[s.at] {
		case '"':
			s.text()
		case '{', '[':
			depth++
			s.at++
		case '}', ']':
			depth--
			s.at++
		case ' ', '\t', '\r', '\n', ',', ':':
			s.at++
		default: // a number, true, false or null
			for s.at < len(s.src) && bytes.IndexByte([]byte(" \t\r\n,:]}"), s.src[s.at]) < 0 {
				s.at++
			}
		}
		if depth == 0 {
			return
		}
	}
}

// text passes over a string.
func (s *scanner) text() {
	for s.at++; s.src[s.at] != '"'; s.at++ {
		if s.src[s.at] == '\\' {
			s.at++
		}
	}
	s.at++
}

// measureJSON refuses what is no single, shallow JSON object, with the offset.
func measureJSON(src []byte) (p *sheaf.Error, at int) {
	depth, inText := 0, false
	for i := 0; i < len(src); i++ {
		switch ch := src[i]; {
		case inText && ch == '\\':
			i++
		case ch == '"':
			inText = !inText
		case inText:
		case ch == '{' || ch == '[':
			if depth++; depth > maxNesting {
				return &sheaf.Error{Class: sheaf.Invalid, Msg: "brackets are nested too deeply", Limit: strconv.Itoa(maxNesting), Hint: "a job needs six levels"}, i
			}
		case ch == '}' || ch == ']':
			depth--
		}
	}
	var raw json.RawMessage
	err := json.Unmarshal(src, &raw)
	if err == nil {
		return nil, 0
	}
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		at = max(0, int(syntax.Offset)-1)
	}
	return &sheaf.Error{Class: sheaf.Invalid, Msg: "malformed JSON: " + err.Error(), Hint: "correct it here or shortly before"}, at
}
