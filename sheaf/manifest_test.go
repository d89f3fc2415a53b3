package sheaf

import (
	"encoding/json"
	"reflect"
	"testing"
)

func TestFileJSONKeepsNames(t *testing.T) {
	for _, name := range []string{"plain/a.txt", "new\nline \"q\" \\", "ü/日本", "bad\xff\xfe/x", "\x7f\x01", "<&>", "\ufffd"} {
		f := File{Output: "o", Path: name, Size: 7, SHA256: "ab", Mode: 0o644, Link: name,
			Parts: []Part{{Partition: 3, Attempt: 2, Node: "n", Path: name, Size: 7, SHA256: "ab"}, {Partition: 4, Attempt: 1}}}
		b, err := json.Marshal(f)
		if err != nil {
			t.Fatalf("%q: %v", name, err)
		}
		if !json.Valid(f.AppendJSON(nil)) {
			t.Errorf("%q: AppendJSON wrote %s", name, f.AppendJSON(nil))
		}
		var got File
		if err := json.Unmarshal(b, &got); err != nil || !reflect.DeepEqual(got, f) {
			t.Errorf("%q came back as %+v (%v) from %s", name, got, err, b)
		}
		again := got.AppendJSON(nil)
		if string(again) != string(f.AppendJSON(nil)) {
			t.Errorf("%q: not one form: %s and %s", name, again, b)
		}
	}
}

func FuzzFileJSON(f *testing.F) {
	f.Add("a", "b\xff", "c")
	f.Fuzz(func(t *testing.T, path, link, part string) {
		in := File{Path: path, Link: link, Parts: []Part{{Path: part}}}
		var got File
		if err := json.Unmarshal(in.AppendJSON(nil), &got); err != nil || !reflect.DeepEqual(got, in) {
			t.Fatalf("%+v came back as %+v (%v)", in, got, err)
		}
	})
}
