package jobspec

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/sheaf-run/agent/sheaf"
)

// isJSON tells the two forms apart: HCL cannot begin with a brace.
func isJSON(data []byte) bool {
	return bytes.HasPrefix(bytes.TrimLeft(data, " \t\r\n"), []byte{'{'})
}

// normalize refuses what is no text, drops a byte order mark and makes line ends \n.
// JSON may take maxJSON bytes.
func normalize(name string, data []byte, maxJSON int) ([]byte, Diagnostics) {
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	limit, what := MaxSource, "the jobspec"
	if isJSON(data) {
		limit, what = maxJSON, "the job"
	}
	refuse := func(p *sheaf.Error) ([]byte, Diagnostics) {
		return nil, Diagnostics{{File: name, Problem: p}}
	}
	if len(data) > limit {
		return refuse(&sheaf.Error{Class: sheaf.TooLarge, Msg: fmt.Sprintf("%s is %s bytes long", what, grouped(int64(len(data)))),
			Limit: grouped(int64(limit)) + " bytes", Hint: "name many files by a glob instead of listing them"})
	}
	if len(bytes.TrimSpace(data)) == 0 {
		return refuse(&sheaf.Error{Class: sheaf.Invalid, Msg: what + " is empty", Hint: `begin with job "NAME" { … }; "agent job init" writes an example`})
	}
	if i := bytes.IndexByte(data, 0); i >= 0 {
		return nil, Diagnostics{pointAt(name, data, i, i+1, &sheaf.Error{Class: sheaf.Invalid, Msg: "a NUL byte cannot stand in a jobspec", Hint: "save the file as UTF-8 text"})}
	}
	if !utf8.Valid(data) {
		i := firstBadUTF8(data)
		return nil, Diagnostics{pointAt(name, data, i, i+1, &sheaf.Error{Class: sheaf.Invalid, Msg: fmt.Sprintf("byte 0x%02x is not valid UTF-8", data[i]), Hint: "save the file as UTF-8 text"})}
	}
	if isJSON(data) {
		return data, nil
	}
	return bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n")), nil
}

func firstBadUTF8(data []byte) int {
	for i := 0; i < len(data); {
		r, n := utf8.DecodeRune(data[i:])
		if r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return len(data)
}

// frame is one open bracket, or the body of a file.
type frame struct {
	open      hclsyntax.TokenType
	loops     int // `for` of this bracket, and of template directives open in it
	branches  int // template `if` open in it
	operators int // since the last comma or, in a body, line
}

// measure refuses HCL that would make its parser or evaluator recurse or
// multiply beyond bounds. It uses the parser's own scanner, which is one loop, so that both see the same brackets.
func measure(name string, src []byte) Diagnostics {
	tokens, _ := hclsyntax.LexConfig(src, name, hcl.InitialPos)
	refuse := func(t hclsyntax.Token, msg, limit, hint string) Diagnostics {
		return Diagnostics{pointAt(name, src, t.Range.Start.Byte, t.Range.End.Byte,
			&sheaf.Error{Class: sheaf.Invalid, Msg: msg, Limit: limit, Hint: hint})}
	}
	stack := []frame{{}}
	tooLong := func(t hclsyntax.Token) Diagnostics {
		return refuse(t, "the expression has too many operators", strconv.Itoa(maxOperators), "split it over several locals")
	}
	for i, t := range tokens {
		top := &stack[len(stack)-1]
		switch t.Type {
		case hclsyntax.TokenOBrace, hclsyntax.TokenOBrack, hclsyntax.TokenOParen, hclsyntax.TokenOQuote, hclsyntax.TokenOHeredoc,
			hclsyntax.TokenTemplateInterp, hclsyntax.TokenTemplateControl:
			f := frame{open: t.Type}
			switch word := nextWord(tokens, i); {
			case t.Type == hclsyntax.TokenTemplateControl:
				top.directive(word)
			case (t.Type == hclsyntax.TokenOBrace || t.Type == hclsyntax.TokenOBrack) && word == "for":
				f.loops = 1
			}
			if top.operators++; top.operators > maxOperators {
				return tooLong(t)
			}
			stack = append(stack, f)
			depth, loops := depthOf(stack)
			if depth > maxNesting {
				return refuse(t, "brackets are nested too deeply", strconv.Itoa(maxNesting), "give inner parts names in a locals block")
			}
			if loops > maxFor {
				return refuse(t, "for-expressions are nested too deeply", strconv.Itoa(maxFor), "each level multiplies the work; give inner lists names in a locals block")
			}
		case hclsyntax.TokenCBrace, hclsyntax.TokenCBrack, hclsyntax.TokenCParen, hclsyntax.TokenCQuote, hclsyntax.TokenCHeredoc, hclsyntax.TokenTemplateSeqEnd:
			if len(stack) > 1 {
				stack = stack[:len(stack)-1]
			}
		case hclsyntax.TokenComma:
			top.operators = 0
		case hclsyntax.TokenNewline:
			if top.open == 0 || top.open == hclsyntax.TokenOBrace {
				top.operators = 0
			}
		case hclsyntax.TokenNumberLit:
			if exponentOf(string(t.Bytes)) > maxExponent {
				return refuse(t, fmt.Sprintf("number %s is out of range", t.Bytes), fmt.Sprintf("1e%d", maxExponent), "write a number that means something")
			}
		case hclsyntax.TokenIdent, hclsyntax.TokenEqual, hclsyntax.TokenColon, hclsyntax.TokenQuotedLit, hclsyntax.TokenStringLit,
			hclsyntax.TokenComment, hclsyntax.TokenFatArrow, hclsyntax.TokenEOF:
		default:
			if top.operators++; top.operators > maxOperators {
				return tooLong(t)
			}
		}
	}
	return nil
}

// directive counts a template's for and if, which nest without brackets.
func (f *frame) directive(word string) {
	switch word {
	case "for":
		f.loops++
	case "endfor":
		f.loops = max(0, f.loops-1)
	case "if":
		f.branches++
	case "endif":
		f.branches = max(0, f.branches-1)
	}
}

func depthOf(stack []frame) (depth, loops int) {
	depth = len(stack) - 1
	for _, f := range stack {
		loops += f.loops
		depth += f.branches
	}
	return depth, loops
}

// nextWord is the identifier behind token i, over line ends and comments.
func nextWord(tokens hclsyntax.Tokens, i int) string {
	for _, t := range tokens[i+1:] {
		switch t.Type {
		case hclsyntax.TokenNewline, hclsyntax.TokenComment:
		case hclsyntax.TokenIdent:
			return string(t.Bytes)
		default:
			return ""
		}
	}
	return ""
}

// exponentOf is the decimal exponent of a number literal, digits before it
// included; MaxInt where it cannot be read.
func exponentOf(lit string) int {
	digits, exp, ok := strings.Cut(strings.ToLower(lit), "e")
	n := len(digits)
	if ok {
		e, err := strconv.Atoi(exp)
		if err != nil {
			return int(^uint(0) >> 1)
		}
		n += max(e, -e)
	}
	return n - 1
}

// measureVariables refuses values from outside as measure refuses a source.
func measureVariables(opts Options) Diagnostics {
	var ds Diagnostics
	total := 0
	check := func(place, value string) {
		total += len(value)
		if !utf8.ValidString(value) || strings.IndexByte(value, 0) >= 0 {
			ds = append(ds, Diagnostic{File: place, Problem: &sheaf.Error{Class: sheaf.Invalid, Msg: "the value is not text", Hint: "give it in UTF-8, without NUL"}})
			return
		}
		if len(value) <= MaxSource {
			ds = append(ds, measure(place, []byte(value))...)
		}
	}
	for name, value := range opts.Vars {
		check("-var "+name, value)
	}
	for _, e := range opts.Env {
		name, value, _ := strings.Cut(e, "=")
		check(name, value)
	}
	if total > maxVariables {
		ds = append(ds, Diagnostic{File: "-var", Problem: &sheaf.Error{Class: sheaf.TooLarge, Msg: "the values of variables are too large", Limit: grouped(maxVariables) + " bytes"}})
	}
	return ds
}
