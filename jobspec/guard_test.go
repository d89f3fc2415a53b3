package jobspec

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/sheaf-run/agent/sheaf"
)

const plainTask = `task "t" {
    driver = "exec"
    config {
      command = "true"
    }
  }`

// TestHostile gives each hostile source to Parse, which must refuse it with a
// limit or a place, and start no child for what can be seen from outside.
func TestHostile(t *testing.T) {
	meta := func(expr string) string {
		return "job \"j\" {\n  meta = { a = " + expr + " }\n  " + plainTask + "\n}\n"
	}
	loops := func(n int) string {
		s := "1"
		for i := n; i > 0; i-- {
			s = "[for x" + strings.Repeat("x", i) + " in range(1000) : " + s + "]"
		}
		return s
	}
	inTemplate := "\"" + strings.Repeat("%{for x in range(1000)}", 3) + "y" + strings.Repeat("%{endfor}", 3) + "\""
	cases := []struct {
		name, text, want string
		class            sheaf.Class
		inside           bool // only evaluation shows it
	}{
		{"empty", "", "is empty", sheaf.Invalid, false},
		{"blank", " \n\t\r\n", "is empty", sheaf.Invalid, false},
		{"byte order mark alone", "\ufeff", "is empty", sheaf.Invalid, false},
		{"NUL", "job \"j\" {\n  region = \"a\x00b\"\n}", "NUL", sheaf.Invalid, false},
		{"invalid UTF-8", "job \"j\" {\n  region = \"a\xff\"\n}", "UTF-8", sheaf.Invalid, false},
		{"invalid UTF-8 in JSON", "{\"name\": \"a\xff\"}", "UTF-8", sheaf.Invalid, false},
		{"5 MB", strings.Repeat("# comment\n", 500_000), "262,144 bytes", sheaf.TooLarge, false},
		{"5 MB of JSON", "{" + strings.Repeat(" ", 5_000_000) + "}", "786,432 bytes", sheaf.TooLarge, false},
		{"100,000 parentheses", meta(strings.Repeat("(", 100_000) + "1" + strings.Repeat(")", 100_000)), "nested too deeply", sheaf.Invalid, false},
		{"open brackets", strings.Repeat("[", 200_000), "nested too deeply", sheaf.Invalid, false},
		{"open blocks", strings.Repeat("a {\n", 50_000), "nested too deeply", sheaf.Invalid, false},
		{"nested templates", meta(strings.Repeat(`"${`, 200) + "1" + strings.Repeat(`}"`, 200)), "nested too deeply", sheaf.Invalid, false},
		{"template if", meta(`"` + strings.Repeat("%{if true}", 100) + strings.Repeat("%{endif}", 100) + `"`), "nested too deeply", sheaf.Invalid, false},
		{"JSON 20,000 deep", strings.Repeat(`{"task":`, 20_000), "nested too deeply", sheaf.Invalid, false},
		{"minus signs", meta(strings.Repeat("-", 200_000) + "1"), "too many operators", sheaf.Invalid, false},
		{"sums", meta("1" + strings.Repeat("+1", 100_000)), "too many operators", sheaf.Invalid, false},
		{"conditionals", meta(strings.Repeat("true ? 1 : ", 20_000) + "1"), "too many operators", sheaf.Invalid, false},
		{"indexes", meta("local.a" + strings.Repeat("[0]", 50_000)), "too many operators", sheaf.Invalid, false},
		{"attributes", meta("local" + strings.Repeat(".a", 50_000)), "too many operators", sheaf.Invalid, false},
		{"three for", meta(loops(3)), "for-expressions are nested too deeply", sheaf.Invalid, false},
		{"seven for", meta(loops(7)), "for-expressions are nested too deeply", sheaf.Invalid, false},
		{"three for over a comment", meta(strings.ReplaceAll(loops(3), "[for", "[ # x\n for")), "for-expressions are nested too deeply", sheaf.Invalid, false},
		{"three for in a template", meta(inTemplate), "for-expressions are nested too deeply", sheaf.Invalid, false},
		{"exponent", meta("1e999999999"), "out of range", sheaf.Invalid, false},
		{"exponent beyond int", meta("1e99999999999999999999"), "out of range", sheaf.Invalid, false},
		{"million products", meta("length(setproduct(range(1000), range(1000), range(1000)))"), "", sheaf.Invalid, true},
		{"text of a gigabyte", meta(`format("%1000000000s", "x")`), "", sheaf.Invalid, true},
		{"number of half a gigabyte", "locals {\n  a0 = 1e1000\n" + repeated(19, "*") + "}\njob \"j\" {\n  meta = { a = \"${local.a40}\" }\n  " + plainTask + "\n}\n", "", sheaf.Invalid, true},
		{"text that doubles", "locals {\n  a0 = \"xxxxxxxxxxxxxxxx\"\n" + repeated(40, "") + "}\njob \"j\" {\n  meta = { a = local.a40 }\n  " + plainTask + "\n}\n", "", sheaf.Invalid, true},
		{"job of megabytes", meta(`join("", [for a in range(1000) : format("%2000s", a)])`), "JSON form", sheaf.Invalid, true},
		{"reads a file", meta(`file("/etc/shadow")`), "reads no files", sheaf.Invalid, true},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			opts := Options{Drivers: drivers, Exec: []string{"/nonexistent"}}
			if c.inside {
				opts.Exec = nil
			}
			job, _, err := Parse(context.Background(), source(c.text), opts)
			var ds Diagnostics
			if job != nil || !errors.As(err, &ds) {
				t.Fatalf("got %v, %v", job, err)
			}
			if sheaf.ClassOf(err) != c.class || !strings.Contains(err.Error(), c.want) {
				t.Errorf("class %s: %s", sheaf.ClassOf(err), err)
			}
			if p := ds[0].Problem; p.Hint == "" || !limitTold(p) {
				t.Errorf("limit %q, hint %q: %s", p.Limit, p.Hint, err)
			}
			if len(err.Error()) > 64<<10 {
				t.Errorf("the error is %d bytes long", len(err.Error()))
			}
			t.Log(err)
		})
	}
}

// limitTold says whether a mistake that is one of size or depth names the limit.
func limitTold(p *sheaf.Error) bool {
	for _, s := range []string{"too ", "out of range", "bytes long"} {
		if strings.Contains(p.Msg, s) {
			return p.Limit != ""
		}
	}
	return p.Class != sheaf.TooLarge || p.Limit != ""
}

// repeated is n locals, each made of the one before twice: a product, or text
// where operator is "". The first is a0 and the last a40.
func repeated(n int, operator string) string {
	var b strings.Builder
	before := "a0"
	for i := 1; i <= n; i++ {
		self := fmt.Sprintf("b%d", i)
		if i == n {
			self = "a40"
		}
		expr := fmt.Sprintf("\"${local.%s}${local.%s}\"", before, before)
		if operator != "" {
			expr = fmt.Sprintf("local.%s %s local.%s", before, operator, before)
		}
		fmt.Fprintf(&b, "  %s = %s\n", self, expr)
		before = self
	}
	return b.String()
}

// TestAccepted gives what is unusual and right.
func TestAccepted(t *testing.T) {
	plain := "job \"j\" {\n  meta = { a = <<EOT\nx\ny\nEOT\n }\n  " + plainTask + "\n}\n"
	for name, text := range map[string]string{
		"byte order mark":     "\ufeff" + plain,
		"CRLF":                strings.ReplaceAll(plain, "\n", "\r\n"),
		"both":                "\ufeff" + strings.ReplaceAll(plain, "\n", "\r\n"),
		"JSON with both":      "\ufeff\r\n{\"name\":\"j\",\"meta\":{\"a\":\"x\\ny\\n\"},\r\n\"task\":{\"name\":\"t\",\"driver\":\"exec\",\"config\":{\"command\":\"true\"}}}",
		"two nested for":      "job \"j\" {\n  meta = { a = <<EOT\nx\ny\nEOT\n }\n  priority = length([for a in range(10) : [for b in range(10) : a]]) * 5\n" + plainTask + "\n}\n",
		"brackets in strings": "job \"j\" { # " + strings.Repeat("(", 300) + "\n  meta = { a = replace(\"x\\ny\\n\", \"" + strings.Repeat("([{", 100) + "\", \"\") }\n  " + plainTask + "\n}\n",
	} {
		job, _, err := Parse(context.Background(), source(text), Options{Drivers: drivers})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := job.Meta["a"]; got != "x\ny\n" {
			t.Errorf("%s: meta is %q", name, got)
		}
	}
}

// TestChildFaults starts children that do not do what they should.
func TestChildFaults(t *testing.T) {
	src := source("job \"j\" {\n  " + plainTask + "\n}\n")
	for name, argv := range map[string][]string{
		"ends without an answer": {"/bin/false"},
		"is killed":              {"/bin/sh", "-c", "kill -9 $$"},
		"writes too much":        {"/bin/sh", "-c", "exec cat /dev/zero"},
		"computes for ever":      {"/bin/sh", "-c", "ulimit -t 6; while :; do :; done"},
	} {
		_, _, err := Parse(context.Background(), src, Options{Drivers: drivers, Exec: argv})
		var ds Diagnostics
		if !errors.As(err, &ds) || ds[0].Problem.Limit == "" || strings.Contains(err.Error(), "takes too long") != (name == "computes for ever") {
			t.Errorf("a child that %s gives %v", name, err)
		}
	}
	if _, _, err := Parse(context.Background(), src, Options{Exec: []string{"/nonexistent"}}); err == nil || sheaf.ClassOf(err) != sheaf.Internal {
		t.Errorf("a child that is not there gives %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, _, err := Parse(ctx, src, Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled context gives %v", err)
	}
}

// TestPrintable guards against escape sequences that reach the terminal by way of a source line.
func TestPrintable(t *testing.T) {
	_, _, err := Eval(Source{Name: "evil\x1b[2J.hcl", Dir: "/", Data: []byte("job \"\x1b[31mred\" {\n\tcount = -1\n}\n")}, Options{})
	if err == nil || bytes.ContainsAny([]byte(err.Error()), "\x1b\t\a") {
		t.Errorf("control characters reach the terminal: %q", err)
	}
}
