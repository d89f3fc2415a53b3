package sheaf

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestSizes(t *testing.T) {
	for text, want := range map[string]Size{"512MiB": 512 << 20, "1GB": 1e9, "1 GiB": 1 << 30, "1.5kib": 1536, "7B": 7, "0B": 0} {
		got, err := ParseSize(text)
		if err != nil || got != want {
			t.Errorf("ParseSize(%q) = %d, %v; want %d", text, got, err, want)
		}
		if back, err := ParseSize(got.String()); err != nil || back != got {
			t.Errorf("ParseSize(%q) = %d, %v; want %d again", got.String(), back, err, got)
		}
	}
	for _, text := range []string{"", "12", "MiB", "-1MiB", "16EiB", "NaNB", "1 potato"} {
		if got, err := ParseSize(text); err == nil {
			t.Errorf("ParseSize(%q) = %d; want an error", text, got)
		}
	}
}

func TestThresholds(t *testing.T) {
	for _, c := range []struct {
		text string
		n    int
		want int
	}{{"1%", 1000, 10}, {"1%", 99, 0}, {"3", 5, 3}, {"100%", 7, 7}, {"0", 10, 0}} {
		th, err := ParseThreshold(c.text)
		if err != nil || th.Of(c.n) != c.want {
			t.Errorf("%s of %d = %d, %v; want %d", c.text, c.n, th.Of(c.n), err, c.want)
		}
		var back Threshold
		b, _ := json.Marshal(th)
		if err := json.Unmarshal(b, &back); err != nil || back != th {
			t.Errorf("%s through JSON %s = %v, %v", c.text, b, back, err)
		}
	}
	for _, text := range []string{"-1", "101%", "x", "1.5", "%"} {
		if _, err := ParseThreshold(text); err == nil {
			t.Errorf("ParseThreshold(%q) passed", text)
		}
	}
}

func TestRanges(t *testing.T) {
	r, err := ParseRanges("9,3, 4-5,7-8,8")
	if err != nil || r.String() != "3-5,7-9" || r.Len() != 6 || r.Contains(6) || !r.Contains(8) {
		t.Fatalf("got %v, %v", r, err)
	}
	for _, text := range []string{"", "a", "5-3", "-1", "1-2-3", "10000000"} {
		if _, err := ParseRanges(text); err == nil {
			t.Errorf("ParseRanges(%q) passed", text)
		}
	}
	var grown Ranges
	for _, i := range []int{1, 2, 3, 7} {
		grown = grown.Add(i)
	}
	if grown.String() != "1-3,7" {
		t.Errorf("grown to %v", grown)
	}
}

func TestTemplates(t *testing.T) {
	vars := map[string]string{"partition.index": "7", "job.name": "a"}
	look := func(n string) (string, bool) { v, ok := vars[n]; return v, ok }
	for in, want := range map[string]string{
		"p=${partition.index}/${job.name}":    "p=7/a",
		"$${HOME} ${job.name}":                "${HOME} a",
		"plain $ and $$":                      "plain $ and $$",
		EscapeTemplate("${partition.index}x"): "${partition.index}x",
	} {
		if got, err := Expand(in, look); err != nil || got != want {
			t.Errorf("Expand(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
	for _, in := range []string{"${", "${nope}", "a${job.name"} {
		if got, err := Expand(in, look); err == nil {
			t.Errorf("Expand(%q) = %q; want an error", in, got)
		}
	}
}

func TestCheckName(t *testing.T) {
	for _, good := range []string{"a", "9lives", "a.b_c-D", strings.Repeat("x", 64)} {
		if err := CheckName("job", good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{"", "../../x", "<script>", "-a", ".a", "a b", "\x1b[31m", "аbc", strings.Repeat("x", 65), strings.Repeat("x", 300)} {
		if err := CheckName("job", bad); ClassOf(err) != Invalid {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestDecodeStrict(t *testing.T) {
	type form struct {
		A int `json:"a"`
		B struct {
			C []string `json:"c"`
		} `json:"b"`
	}
	var f form
	if err := DecodeStrict([]byte(`{"a":1,"b":{"c":["x","x"]}}`), &f); err != nil || f.A != 1 || len(f.B.C) != 2 {
		t.Fatalf("%+v, %v", f, err)
	}
	for _, bad := range []string{
		`{"a":1,"a":2}`, `{"b":{"c":[],"c":[]}}`, `{"z":1}`, `{"a":"x"}`, `{"a":1} x`, `{"a":1}{"a":2}`, `{`, ``, "{\"a\":1,\"b\":{\"c\":[\"\xff\"]}}",
		strings.Repeat("[", 20000) + strings.Repeat("]", 20000),
	} {
		if err := DecodeStrict([]byte(bad), &f); ClassOf(err) != Invalid {
			t.Errorf("%.40q: %v", bad, err)
		}
	}
}
