package shard

import (
	"encoding/base64"
	"encoding/json"
	"strconv"
	"unicode/utf8"

	"github.com/sheaf-run/agent/sheaf"
)

// AppendJSON appends the line that previews print for a shard, without a newline:
// index, key, bytes and atoms. Names that are not UTF-8 come as path_b64.
func AppendJSON(dst []byte, s *sheaf.Shard) []byte {
	dst = strconv.AppendInt(append(dst, `{"index":`...), int64(s.Index), 10)
	dst = appendText(append(dst, ','), "key", s.Key)
	dst = strconv.AppendInt(append(dst, `,"bytes":`...), s.Bytes(), 10)
	dst = append(dst, `,"atoms":[`...)
	first := true
	for _, d := range s.Data {
		for i := range d.Atoms {
			a := &d.Atoms[i]
			if !first {
				dst = append(dst, ',')
			}
			first = false
			dst = appendText(append(dst, '{'), "path", a.Path)
			dst = strconv.AppendInt(append(dst, `,"size":`...), a.Size, 10)
			dst = strconv.AppendBool(append(dst, `,"dir":`...), a.Dir)
			dst = appendText(append(dst, ','), "input", a.Input)
			dst = append(dst, '}')
		}
	}
	return append(dst, `]}`...)
}

// AppendShardFile appends the lines that a task finds in its shard file: one
// for each datum, with its key and its atoms' path, size, digest and input.
func AppendShardFile(dst []byte, s *sheaf.Shard) []byte {
	for _, d := range s.Data {
		dst = appendText(append(dst, '{'), "key", d.Key)
		dst = append(dst, `,"atoms":[`...)
		for i := range d.Atoms {
			a := &d.Atoms[i]
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendText(append(dst, '{'), "path", a.Path)
			dst = strconv.AppendInt(append(dst, `,"size":`...), a.Size, 10)
			dst = strconv.AppendBool(append(dst, `,"dir":`...), a.Dir)
			dst = appendText(append(dst, ','), "digest", a.Identity)
			dst = appendText(append(dst, ','), "input", a.Input)
			dst = append(dst, '}')
		}
		dst = append(dst, "]}\n"...)
	}
	return dst
}

// appendText appends a member; its value, where it is not UTF-8, as name_b64.
func appendText(dst []byte, name, value string) []byte {
	dst = append(append(dst, '"'), name...)
	if !utf8.ValidString(value) {
		dst = base64.StdEncoding.AppendEncode(append(dst, `_b64":"`...), []byte(value))
		return append(dst, '"')
	}
	dst = append(dst, `":`...)
	for i := range len(value) {
		if c := value[i]; c < ' ' || c == '"' || c == '\\' || c >= 0x7f {
			text, err := json.Marshal(value)
			if err != nil {
				panic("shard: a string has no JSON form: " + err.Error())
			}
			return append(dst, text...)
		}
	}
	return append(append(append(dst, '"'), value...), '"')
}
