package agent

import (
	"reflect"
	"strings"
)

// hidden stands for a setting that is, or may hold, a secret.
const hidden = "(hidden)"

// Show is the configuration as it is in force, by the names it has in files, without what is secret: fields
// with the tag `show:"hidden"`.
func (c Config) Show() map[string]any { return show(reflect.ValueOf(c)).(map[string]any) }

func show(v reflect.Value) any {
	switch v.Kind() {
	case reflect.Pointer:
		return show(v.Elem())
	case reflect.Slice:
		list := []any{}
		for i := range v.Len() {
			list = append(list, show(v.Index(i)))
		}
		return list
	case reflect.Struct:
		fields := map[string]any{}
		for i := range v.NumField() {
			f := v.Type().Field(i)
			tag, tagged := f.Tag.Lookup("hcl")
			name, _, _ := strings.Cut(tag, ",")
			switch {
			case !tagged || v.Field(i).IsZero():
			case f.Tag.Get("show") == hiddenTag:
				fields[name] = hidden
			default:
				fields[name] = show(v.Field(i))
			}
		}
		return fields
	}
	return v.Interface()
}

const hiddenTag = "hidden"
