package shard

import (
	"encoding/json"
	"testing"

	"github.com/sheaf-run/agent/sheaf"
)

func TestJSONForms(t *testing.T) {
	s := sheaf.Shard{Index: 3, Key: "20\"22", Data: []sheaf.Datum{
		{Key: "20\"22", Atoms: []sheaf.Atom{{Path: "/in/a b.txt", Input: "in", Size: 5, Identity: "stat:5:7"}, {Path: "/in/d", Size: 2, Dir: true, Identity: "tree:00"}}},
		{Key: "20\"22", Atoms: []sheaf.Atom{{Path: "/in/\xff\n", Input: "in", Size: 1, Identity: "stat:1:7"}}},
		{Key: "20\"22", Atoms: []sheaf.Atom{{Path: "/in/é\n\x7f", Input: "in"}}},
	}}
	line := AppendJSON(nil, &s)
	want := `{"index":3,"key":"20\"22","bytes":8,"atoms":[` +
		`{"path":"/in/a b.txt","size":5,"dir":false,"input":"in"},` +
		`{"path":"/in/d","size":2,"dir":true,"input":""},` +
		`{"path_b64":"L2luL/8K","size":1,"dir":false,"input":"in"},` +
		`{"path":"/in/é\n` + "\x7f" + `","size":0,"dir":false,"input":"in"}]}`
	if string(line) != want {
		t.Errorf("preview:\n got %s\nwant %s", line, want)
	}
	if !json.Valid(line) {
		t.Errorf("not JSON: %s", line)
	}
	file := AppendShardFile(nil, &s)
	want = `{"key":"20\"22","atoms":[{"path":"/in/a b.txt","size":5,"dir":false,"digest":"stat:5:7","input":"in"},{"path":"/in/d","size":2,"dir":true,"digest":"tree:00","input":""}]}` + "\n" +
		`{"key":"20\"22","atoms":[{"path_b64":"L2luL/8K","size":1,"dir":false,"digest":"stat:1:7","input":"in"}]}` + "\n" +
		`{"key":"20\"22","atoms":[{"path":"/in/é\n` + "\x7f" + `","size":0,"dir":false,"digest":"","input":"in"}]}` + "\n"
	if string(file) != want {
		t.Errorf("shard file:\n got %s\nwant %s", file, want)
	}
	if got := AppendJSON(nil, &sheaf.Shard{}); string(got) != `{"index":0,"key":"","bytes":0,"atoms":[]}` {
		t.Errorf("an empty shard: %s", got)
	}
}
