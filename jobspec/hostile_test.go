package jobspec

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/sheaf-run/agent/sheaf"
)

// sane is a job whose every value a hostile one may take the place of.
const sane = `{"name": "j", "inputs": [{"name": "in", "source": "file:///data", "mount": "/in"}], "split": {"glob": "/*", "batch_size": 1},
	"outputs": [{"name": "out", "path": "/out"}], "task": {"name": "t", "driver": "exec", "config": {"command": "true"}}}`

// with gives the sane job another value at a path of keys and indexes.
func with(t *testing.T, path, value string) []byte {
	t.Helper()
	var job any
	if err := json.Unmarshal([]byte(sane), &job); err != nil {
		t.Fatal(err)
	}
	at := job.(map[string]any)
	keys := strings.Split(path, ".")
	for _, k := range keys[:len(keys)-1] {
		name, isList := strings.CutSuffix(k, "[0]")
		switch {
		case isList:
			at = at[name].([]any)[0].(map[string]any)
		default:
			if at[name] == nil {
				at[name] = map[string]any{}
			}
			at = at[name].(map[string]any)
		}
	}
	at[keys[len(keys)-1]] = json.RawMessage(value)
	if path == "count" {
		delete(job.(map[string]any), "split")
	}
	b, err := json.Marshal(job)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestHostileValues gives one hostile value at a time in the form that the API
// takes: the refusal names the field, the value, the limit where there is one, and the way out.
func TestHostileValues(t *testing.T) {
	if _, err := ParseJSON([]byte(sane), drivers); err != nil {
		t.Fatal(err)
	}
	const counts = "1 to 10,000,000"
	for _, c := range []struct{ field, value, says, limit string }{
		{"count", `0`, "is 0", counts},
		{"count", `-1`, "is -1", counts},
		{"count", `1.5`, "is 1.5", counts},
		{"count", `"ten"`, `is "ten"`, counts},
		{"count", `1e400`, "is 1e400", counts},
		{"count", `1e9`, "is 1e9", counts},
		{"count", `10000001`, "is 10000001", counts},
		{"split.batch_size", `0`, "is 0", counts},
		{"split.batch_size", `-1`, "is -1", counts},
		{"split.partitions", `1e9`, "is 1e9", counts},
		{"split.max_bytes", `"-1B"`, `"-1B"`, "1B or more"},
		{"priority", `0`, "is 0", "1 to 100"},
		{"priority", `1000`, "is 1000", "1 to 100"},
		{"retry.attempts", `1000000`, "is 1000000", "1 to 100"},
		{"retry.max_delay", `"25h"`, "is 25h", "0s to 24h"},
		{"failure.tolerate", `"101%"`, "101%", "0% to 100%"},
		{"timeout", `"0s"`, "is 0", "1ms to 8760h"},
		{"timeout", `"-1s"`, "-1s", "1ms to 8760h"},
		{"timeout", `"5"`, `is "5"`, ""},
		{"timeout", `5`, "duration 5 has no unit", ""},
		{"timeout", `"10y"`, `is "10y"`, "8760h"},
		{"timeout", `"87600h"`, "is 87600h", "1ms to 8760h"},
		{"task.timeout", `"87600h"`, "is 87600h", "1ms to 8760h"},
		{"task.kill_timeout", `"48h"`, "is 48h", "1ms to 24h"},
		{"task.resources.cpu", `0`, "is 0", counts},
		{"task.resources.cpu", `1e400`, "is 1e400", counts},
		{"task.resources.memory", `"-1MiB"`, `"-1MiB"`, "4MiB to 64TiB"},
		{"task.resources.memory", `"16EiB"`, `"16EiB"`, "4MiB to 64TiB"},
		{"task.resources.memory", `"99999999999999999999GiB"`, "GiB", "4MiB to 64TiB"},
		{"task.resources.memory", `"0B"`, "is 0", "4MiB to 64TiB"},
		{"task.resources.disk", `"2PiB"`, "is 2PiB", "1MiB to 1PiB"},
		{"task.resources.pids", `0`, "is 0", "1 to 4,194,304"},
		{"name", `"../../x"`, `"../../x"`, ""},
		{"name", `"<script>"`, `"<script>"`, ""},
		{"name", `"\u001b[31mred"`, `"\x1b[31mred"`, ""},
		{"name", `"` + strings.Repeat("n", 300) + `"`, "300 bytes", "64"},
		{"name", `""`, "is empty", ""},
		{"name", `"\u0430dmin"`, `'\u0430'`, ""},
		{"name", `"a\u0000"`, `"a\x00"`, ""},
		{"namespace", `"../x"`, `"../x"`, ""},
		{"region", `"<b>"`, `"<b>"`, ""},
		{"task.name", `"a/b"`, `"a/b"`, ""},
		{"inputs[0].name", `"-rf"`, `"-rf"`, ""},
		{"outputs[0].name", `"a\nb"`, `"a\nb"`, ""},
		{"task.driver", `"dokcer"`, `"dokcer"`, ""},
		{"task.env", `{"A=B": "x"}`, `"A=B"`, ""},
		{"split.glob", `"/[a"`, `"/[a"`, ""},
		{"split.glob", `"../*"`, `"../*"`, ""},
		{"split.glob", `"/**a"`, `"/**a"`, ""},
		{"split.base_path", `"/in/../.."`, `"/in/../.."`, ""},
		{"split.group_by", `"(?=x)"`, `"(?=x)"`, ""},
		{"inputs[0].mount", `"/etc"`, `"/etc"`, ""},
		{"inputs[0].mount", `"/in/../etc"`, `"/in/../etc"`, ""},
		{"inputs[0].source", `"file:///data/../etc"`, `"file:///data/../etc"`, ""},
		{"inputs[0].source", `"gopher://x"`, `"gopher://x"`, ""},
		{"outputs[0].path", `"/etc"`, `"/etc"`, ""},
		{"outputs[0].path", `"/proc/self"`, `"/proc/self"`, ""},
		{"outputs[0].path", `"/out/../etc"`, `"/out/../etc"`, ""},
		{"outputs[0].path", `"out"`, `"out"`, ""},
		{"outputs[0].path", `"/` + strings.Repeat("p", 2000) + `"`, "2001 bytes", "1024 bytes"},
		{"outputs[0].path", `"/o\u0000"`, `"/o\x00"`, ""},
	} {
		_, err := ParseJSON(with(t, c.field, c.value), drivers)
		var ds Diagnostics
		if !errors.As(err, &ds) || len(ds) != 1 {
			t.Errorf("%s = %.40s: %v, want one mistake", c.field, c.value, err)
			continue
		}
		p := ds[0].Problem
		if p.Class != sheaf.Invalid || !strings.HasPrefix(p.Field, c.field) || p.Hint == "" {
			t.Errorf("%s = %.40s: class %s, field %q, hint %q", c.field, c.value, p.Class, p.Field, p.Hint)
		}
		if !strings.Contains(p.Msg, c.says) || !strings.Contains(p.Limit, c.limit) || c.limit == "" && p.Limit != "" {
			t.Errorf("%s = %.40s: %q with the limit %q, want %q with %q", c.field, c.value, p.Msg, p.Limit, c.says, c.limit)
		}
	}
}

// TestHostileJSON gives what is no job at all where a job is expected, as the API does.
func TestHostileJSON(t *testing.T) {
	for name, c := range map[string]struct {
		text, field, says, limit string
		class                    sheaf.Class
	}{
		"empty":             {"", "", "is empty", "", sheaf.Invalid},
		"nothing but blank": {" \r\n\t", "", "is empty", "", sheaf.Invalid},
		"null":              {"null", "", "", "", sheaf.Invalid},
		"a list":            {"[]", "", "", "", sheaf.Invalid},
		"an empty object":   {"{}", "name", "name is empty", "", sheaf.Invalid},
		"5 MB":              {`{"name": "` + strings.Repeat("x", 5<<20) + `"}`, "", "bytes long", "786,432 bytes", sheaf.TooLarge},
		"20,000 deep":       {strings.Repeat(`{"meta":`, 20_000), "", "nested too deeply", "64", sheaf.Invalid},
		"20,000 lists":      {`{"task":` + strings.Repeat(`[`, 20_000), "", "nested too deeply", "64", sheaf.Invalid},
		"a key twice":       {strings.Replace(sane, `"name": "j"`, `"name": "j", "name": "k"`, 1), "name", `"name" is given twice`, "", sheaf.Invalid},
		"an inner key twice": {strings.Replace(sane, `"name": "t"`, `"name": "t", "name": "t"`, 1), "task.name",
			`"name" is given twice`, "", sheaf.Invalid},
		"a key spelt twice":   {strings.Replace(sane, `"name": "j"`, `"name": "j", "n\u0061me": "k"`, 1), "name", `"name" is given twice`, "", sheaf.Invalid},
		"an unknown key":      {strings.Replace(sane, `"name": "j"`, `"name": "j", "colour": 1`, 1), "colour", `unknown key "colour"`, "", sheaf.Invalid},
		"a key in capitals":   {strings.Replace(sane, `"name": "j"`, `"Name": "j"`, 1), "Name", `unknown key "Name"`, "", sheaf.Invalid},
		"an unknown key deep": {strings.Replace(sane, `"path": "/out"`, `"path": "/out", "mode": 1`, 1), "outputs[0].mode", `unknown key "mode"`, "", sheaf.Invalid},
		"invalid UTF-8":       {strings.Replace(sane, `"j"`, "\"j\xff\"", 1), "", "0xff is not valid UTF-8", "", sheaf.Invalid},
		"a NUL byte":          {strings.Replace(sane, `"j"`, "\"j\x00\"", 1), "", "NUL byte", "", sheaf.Invalid},
		"half a surrogate":    {strings.Replace(sane, `"j"`, `"\ud800"`, 1), "name", "name", "", sheaf.Invalid},
		"two values":          {sane + sane, "", "after top-level value", "", sheaf.Invalid},
		"cut off":             {sane[:len(sane)-1], "", "malformed JSON", "", sheaf.Invalid},
	} {
		job, err := ParseJSON([]byte(c.text), drivers)
		var p *sheaf.Error
		if job != nil || !errors.As(err, &p) {
			t.Errorf("%s: %v, %v", name, job, err)
			continue
		}
		if p.Class != c.class || p.Field != c.field || p.Hint == "" || !strings.Contains(p.Msg, c.says) || p.Limit != c.limit {
			t.Errorf("%s: class %s, field %q, limit %q, hint %q: %.200q", name, p.Class, p.Field, p.Limit, p.Hint, p.Msg)
		}
		if len(err.Error()) > 16<<10 {
			t.Errorf("%s: the error is %d bytes long", name, len(err.Error()))
		}
	}
	if _, err := ParseJSON([]byte("\ufeff"+strings.ReplaceAll(sane, "\n", "\r\n")), drivers); err != nil {
		t.Errorf("with a byte order mark and CRLF: %v", err)
	}
}
