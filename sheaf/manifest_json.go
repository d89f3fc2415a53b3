package sheaf

import (
	"encoding/base64"
	"encoding/json"
	"strconv"
	"unicode/utf8"
)

// Names of files are bytes. In JSON a name that is UTF-8 stands as it is, under
// "path" (or "link"); one that is not stands in base64 under "path_b64" ("link_b64").

// MarshalJSON writes the form described at [File.AppendJSON].
func (f File) MarshalJSON() ([]byte, error) { return f.AppendJSON(nil), nil }

// AppendJSON appends the one JSON form of f: keys in a fixed order, no spaces,
// so that equal manifests have equal bytes and one digest.
func (f File) AppendJSON(b []byte) []byte {
	b = append(b, `{"output":`...)
	b = appendQuoted(b, f.Output)
	b = appendName(append(b, ','), "path", f.Path)
	b = append(b, `,"size":`...)
	b = strconv.AppendInt(b, f.Size, 10)
	b = append(b, `,"sha256":`...)
	b = appendQuoted(b, f.SHA256)
	b = append(b, `,"mode":`...)
	b = strconv.AppendUint(b, uint64(f.Mode), 10)
	if f.Link != "" {
		b = appendName(append(b, ','), "link", f.Link)
	}
	for i, p := range f.Parts {
		if i == 0 {
			b = append(b, `,"parts":[`...)
		} else {
			b = append(b, ',')
		}
		b = p.AppendJSON(b)
	}
	if len(f.Parts) > 0 {
		b = append(b, ']')
	}
	return append(b, '}')
}

// UnmarshalJSON reads what MarshalJSON writes.
func (f *File) UnmarshalJSON(b []byte) error {
	type plain File
	var v struct {
		plain
		PathB64 []byte `json:"path_b64"`
		LinkB64 []byte `json:"link_b64"`
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return err
	}
	*f = File(v.plain)
	f.Path, f.Link = nameOf(f.Path, v.PathB64), nameOf(f.Link, v.LinkB64)
	return nil
}

// MarshalJSON writes the form described at [Part.AppendJSON].
func (p Part) MarshalJSON() ([]byte, error) { return p.AppendJSON(nil), nil }

// AppendJSON appends the one JSON form of p.
func (p Part) AppendJSON(b []byte) []byte {
	b = append(b, `{"partition":`...)
	b = strconv.AppendInt(b, int64(p.Partition), 10)
	b = append(b, `,"attempt":`...)
	b = strconv.AppendUint(b, uint64(p.Attempt), 10)
	if p.Node != "" {
		b = append(b, `,"node":`...)
		b = appendQuoted(b, string(p.Node))
	}
	if p.Path != "" {
		b = appendName(append(b, ','), "path", p.Path)
	}
	b = append(b, `,"size":`...)
	b = strconv.AppendInt(b, p.Size, 10)
	b = append(b, `,"sha256":`...)
	b = appendQuoted(b, p.SHA256)
	return append(b, '}')
}

// UnmarshalJSON reads what MarshalJSON writes.
func (p *Part) UnmarshalJSON(b []byte) error {
	type plain Part
	var v struct {
		plain
		PathB64 []byte `json:"path_b64"`
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return err
	}
	*p = Part(v.plain)
	p.Path = nameOf(p.Path, v.PathB64)
	return nil
}

// nameOf is the name that stands as it is or, where it is not UTF-8, in base64.
func nameOf(plain string, b64 []byte) string {
	if b64 != nil {
		return string(b64)
	}
	return plain
}

func appendName(b []byte, key, name string) []byte {
	b = append(b, '"')
	b = append(b, key...)
	if utf8.ValidString(name) {
		b = append(b, `":`...)
		return appendQuoted(b, name)
	}
	b = append(b, `_b64":"`...)
	b = base64.StdEncoding.AppendEncode(b, []byte(name))
	return append(b, '"')
}

// appendQuoted appends s as a JSON string; bytes that are not UTF-8 become U+FFFD.
func appendQuoted(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && n == 1 {
				b = append(append(b, s[start:i]...), "\ufffd"...)
				start = i + 1
			}
			i += n
			continue
		}
		if c >= ' ' && c != '"' && c != '\\' && c != 0x7f {
			i++
			continue
		}
		b = append(b, s[start:i]...)
		if c == '"' || c == '\\' {
			b = append(b, '\\', c)
		} else {
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
		i++
		start = i
	}
	return append(append(b, s[start:]...), '"')
}
