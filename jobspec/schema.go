package jobspec

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/sheaf-run/agent/sheaf"
)

// config checks a driver's config against its schema.
func (c *checker) config(path, driver string, config map[string]any) {
	if c.drivers == nil {
		return
	}
	schema, ok := c.drivers[driver]
	if !ok {
		if driver != "" {
			hint := didYouMean(driver, slices.Collect(maps.Keys(c.drivers)))
			if nearest(driver, []string{"docker", "podman", "containers"}) != "" {
				hint = `containers are run by "containerd"; ` + hint
			}
			c.bad(parentOf(path)+".driver", fmt.Sprintf("there is no driver %s", quoted(driver)), "", hint)
		}
		return
	}
	if schema.Open {
		c.templates(path, config)
		return
	}
	var names []string
	for _, a := range schema.Attributes {
		names = append(names, a.Name)
		v, given := config[a.Name]
		switch {
		case given:
			c.configValue(path+"."+a.Name, a, v)
		case a.Required:
			c.bad(path, fmt.Sprintf("driver %s needs %s in config", quoted(driver), quoted(a.Name)), "", fmt.Sprintf("%s is a %s: %s", a.Name, a.Kind, a.Doc))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(config)) {
		if !slices.Contains(names, name) {
			c.bad(path+"."+name, fmt.Sprintf("driver %s has no argument %s", quoted(driver), quoted(name)), "", didYouMean(name, names))
		}
	}
}

func (c *checker) configValue(path string, a sheaf.ConfigAttribute, v any) {
	fits := false
	switch a.Kind {
	case sheaf.ConfigString:
		var s string
		if s, fits = v.(string); fits && s == "" && a.Required {
			c.bad(path, a.Name+" is empty", "", "give it a value")
			return
		}
		_, archive, isArchive := sheaf.CutArchive(s)
		switch {
		case !fits:
		case a.Name == "image" && isArchive:
			if scheme(archive) != "" {
				c.fileURL(path, a.Name, archive)
			}
		case a.URL && !isImage(a, s):
			c.fileURL(path, a.Name, s)
		}
	case sheaf.ConfigStrings:
		var list []any
		if list, fits = v.([]any); fits {
			for _, x := range list {
				_, isText := x.(string)
				fits = fits && isText
			}
		}
	case sheaf.ConfigMap:
		var m map[string]any
		if m, fits = v.(map[string]any); fits {
			for _, x := range m {
				_, isText := x.(string)
				fits = fits && isText
			}
		}
	case sheaf.ConfigNumber:
		_, fits = v.(float64)
	case sheaf.ConfigBool:
		_, fits = v.(bool)
	}
	if !fits {
		c.bad(path, fmt.Sprintf("%s is not a %s", a.Name, a.Kind), "", fmt.Sprintf("write %s = %s (%s)", a.Name, kindExamples[a.Kind], a.Doc))
		return
	}
	c.templates(path, v)
}

// kindExamples show how a value of each kind is written.
var kindExamples = map[sheaf.ConfigKind]string{
	sheaf.ConfigString: `"…"`, sheaf.ConfigStrings: `["…", "…"]`, sheaf.ConfigMap: `{ key = "…" }`,
	sheaf.ConfigNumber: "1", sheaf.ConfigBool: "true",
}

// templates checks every string within a config value.
func (c *checker) templates(path string, v any) {
	switch v := v.(type) {
	case string:
		c.template(path, v)
	case []any:
		for i, x := range v {
			c.templates(fmt.Sprintf("%s[%d]", path, i), x)
		}
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			c.templates(path+"."+key, v[key])
		}
	}
}

// isImage reports whether a location is an image reference, which has no
// scheme, rather than a path or URL.
func isImage(a sheaf.ConfigAttribute, s string) bool {
	return a.Name == "image" && !strings.Contains(s, "://")
}
