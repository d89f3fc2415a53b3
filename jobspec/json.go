package jobspec

import (
	"encoding"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/sheaf-run/agent/sheaf"
)

// jsonReader decodes the JSON form of a job: unlike encoding/json it refuses
// unknown keys, keys given twice and keys in other letters, reports all mistakes, and
// knows where each value stands.
type jsonReader struct {
	file    string
	src     []byte
	at      map[string][2]int // JSON path to the bytes of its value
	spoiled map[string]bool
	diags   Diagnostics
}

// decodeJSON reads, completes and checks a job.
func decodeJSON(src Source, drivers map[string]sheaf.ConfigSchema) (*sheaf.Job, Diagnostics) {
	r := &jsonReader{file: src.Name, src: src.Data, at: map[string][2]int{}, spoiled: map[string]bool{}}
	if p, at := measureJSON(src.Data); p != nil {
		return nil, Diagnostics{pointAt(src.Name, src.Data, at, at+1, p)}
	}
	job := &sheaf.Job{}
	s := scanner{src: src.Data}
	r.value(&s, "", reflect.ValueOf(job).Elem())
	d := &decoder{file: src.Name, dir: src.Dir, schemas: drivers, spoiled: r.spoiled}
	for _, p := range zeros(job, r.written) {
		if !d.isSpoiled(p.Field) {
			r.report(p.Field, p)
		}
	}
	defaults(job, r.written)
	d.resolve(job)
	for _, x := range d.diags {
		r.report(x.Problem.Field, x.Problem)
	}
	d.spoiled = maps.Clone(r.spoiled)
	for _, p := range problems(job, drivers) {
		if !d.isSpoiled(p.Field) {
			r.report(p.Field, p)
		}
	}
	slices.SortStableFunc(r.diags, byPlace)
	if len(r.diags) > 0 {
		return nil, r.diags.cut()
	}
	return job, nil
}

func (r *jsonReader) written(path string) bool { _, ok := r.at[path]; return ok }

// report notes a mistake at the value of path, or of what is nearest around it.
func (r *jsonReader) report(path string, p *sheaf.Error) {
	p.Field = path
	at := path
	for at != "" {
		if _, ok := r.at[at]; ok {
			break
		}
		at = parentOf(at)
	}
	span := r.at[at]
	if at == "" {
		span = [2]int{0, 1}
	}
	r.spoiled[path] = true
	if r.file == "" {
		r.diags = append(r.diags, Diagnostic{Problem: p})
		return
	}
	r.diags = append(r.diags, pointAt(r.file, r.src, span[0], span[1], p))
}

var (
	jsonUnmarshaler = reflect.TypeFor[json.Unmarshaler]()
	textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()
)

// value reads the value at the scanner into v.
func (r *jsonReader) value(s *scanner, path string, v reflect.Value) {
	s.space()
	start := s.at
	first := s.src[s.at]
	r.at[path] = [2]int{start, start + 1}
	defer func() { r.at[path] = [2]int{start, s.at} }()
	if first == 'n' && (v.Kind() == reflect.Pointer || v.Kind() == reflect.Slice || v.Kind() == reflect.Map || v.Kind() == reflect.Interface) {
		s.skip()
		return
	}
	if v.Kind() == reflect.Pointer {
		v.Set(reflect.New(v.Type().Elem()))
		v = v.Elem()
	}
	custom := reflect.PointerTo(v.Type()).Implements(jsonUnmarshaler) || reflect.PointerTo(v.Type()).Implements(textUnmarshaler)
	switch {
	case custom:
		r.leaf(s, path, v)
	case v.Kind() == reflect.Struct && first == '{':
		fields := fieldsOf(v)
		r.object(s, path, func(key, at string) {
			f, ok := fields[key]
			if !ok {
				start := s.at
				s.skip()
				r.at[at] = [2]int{start, s.at}
				r.report(at, &sheaf.Error{Class: sheaf.Invalid, Msg: fmt.Sprintf("unknown key %s", quoted(key)), Hint: didYouMean(key, keysOf(fields))})
				return
			}
			r.value(s, at, f)
		})
	case v.Kind() == reflect.Map && first == '{':
		m := reflect.MakeMap(v.Type())
		r.object(s, path, func(key, at string) {
			item := reflect.New(v.Type().Elem()).Elem()
			r.value(s, at, item)
			m.SetMapIndex(reflect.ValueOf(key), item)
		})
		v.Set(m)
	case v.Kind() == reflect.Slice && first == '[':
		list := reflect.MakeSlice(v.Type(), 0, 0)
		r.array(s, path, func(at string) {
			item := reflect.New(v.Type().Elem()).Elem()
			r.value(s, at, item)
			list = reflect.Append(list, item)
		})
		v.Set(list)
	case v.Kind() == reflect.Interface && first == '{':
		m := map[string]any{}
		r.object(s, path, func(key, at string) {
			var item any
			r.value(s, at, reflect.ValueOf(&item).Elem())
			m[key] = item
		})
		v.Set(reflect.ValueOf(m))
	case v.Kind() == reflect.Interface && first == '[':
		list := []any{}
		r.array(s, path, func(at string) {
			var item any
			r.value(s, at, reflect.ValueOf(&item).Elem())
			list = append(list, item)
		})
		v.Set(reflect.ValueOf(list))
	default:
		r.leaf(s, path, v)
	}
}

// object reads an object's keys; read must read or skip each value.
func (r *jsonReader) object(s *scanner, path string, read func(key, at string)) {
	seen := map[string]bool{}
	s.at++
	for s.space(); s.src[s.at] != '}'; s.space() {
		if s.src[s.at] == ',' {
			s.at++
			continue
		}
		start := s.at
		s.skip()
		key, err := strconv.Unquote(string(s.src[start:s.at]))
		if err != nil {
			_ = json.Unmarshal(s.src[start:s.at], &key)
		}
		keyAt := [2]int{start, s.at}
		s.space()
		s.at++ // the colon
		s.space()
		at := key
		if path != "" {
			at = path + "." + key
		}
		if seen[key] {
			s.skip()
			r.at[at] = keyAt
			r.report(at, &sheaf.Error{Class: sheaf.Invalid, Msg: fmt.Sprintf("key %s is given twice", quoted(key)), Hint: "give it once"})
			continue
		}
		seen[key] = true
		read(key, at)
	}
	s.at++
}

func (r *jsonReader) array(s *scanner, path string, read func(at string)) {
	s.at++
	for n := 0; ; {
		s.space()
		switch s.src[s.at] {
		case ']':
			s.at++
			return
		case ',':
			s.at++
		default:
			read(fmt.Sprintf("%s[%d]", path, n))
			n++
		}
	}
}

// fieldsOf are a struct's fields by JSON key, those of embedded structs too.
func fieldsOf(v reflect.Value) map[string]reflect.Value {
	fields := map[string]reflect.Value{}
	for i := range v.NumField() {
		f := v.Type().Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous && name == "":
			for k, x := range fieldsOf(v.Field(i)) {
				fields[k] = x
			}
		case name != "" && name != "-":
			fields[name] = v.Field(i)
		}
	}
	return fields
}

func keysOf(fields map[string]reflect.Value) []string {
	var keys []string
	for k := range fields {
		keys = append(keys, k)
	}
	return keys
}
