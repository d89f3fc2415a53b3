package jobspec

import (
	"fmt"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/sheaf-run/agent/sheaf"
)

// cleanPath is p without what means nothing ("//", "/./", a slash at the end). A path that is not absolute
// or climbs stays as it is, for the rules to name.
func cleanPath(p string) string {
	if !strings.HasPrefix(p, "/") || climbs(p) {
		return p
	}
	return path.Clean(p)
}

// climbs reports whether a segment is "..".
func climbs(p string) bool { return slices.Contains(strings.Split(p, "/"), "..") }

// within reports whether p is dir or lies below it.
func within(p, dir string) bool {
	return p == dir || dir == "/" || strings.HasPrefix(p, dir+"/")
}

// Directories that hold the system a task runs on: nothing is mounted at
// them. Below closed ones neither; below the others people do keep data.
var (
	closedDirs = []string{"/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/proc", "/sbin", "/sys",
		"/usr/bin", "/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/libexec", "/usr/sbin"}
	systemDirs = []string{"/home", "/opt", "/root", "/run", "/tmp", "/usr", "/usr/local", "/var", "/var/lib", "/var/run"}
)

// mountPath checks where a directory is put before the task.
func (c *checker) mountPath(field, name, p, example string) bool {
	switch {
	case p == "":
		c.bad(field, name+" is missing", "", fmt.Sprintf(`write %s = "%s"`, name, example))
	case !strings.HasPrefix(p, "/"):
		c.bad(field, fmt.Sprintf("%s %s is not absolute", name, quoted(p)), "", fmt.Sprintf(`begin it with /, as in "%s"`, example))
	case climbs(p):
		c.bad(field, fmt.Sprintf("%s %s climbs with ..", name, quoted(p)), "", "write the path that it leads to")
	case strings.IndexFunc(p, func(r rune) bool { return r < 0x20 || r == 0x7f }) >= 0:
		c.bad(field, fmt.Sprintf("%s %s holds a control character", name, quoted(p)), "", "leave it out")
	case p != path.Clean(p):
		c.bad(field, fmt.Sprintf("%s %s is not in its shortest form", name, quoted(p)), "", "write "+quoted(path.Clean(p)))
	case len(p) > maxPath:
		c.bad(field, fmt.Sprintf("%s is %d bytes long", name, len(p)), fmt.Sprintf("%d bytes", maxPath), "shorten it")
	case p == "/" || slices.Contains(systemDirs, p) || slices.ContainsFunc(closedDirs, func(d string) bool { return within(p, d) }):
		c.bad(field, fmt.Sprintf("%s %s is a directory of the system", name, quoted(p)), "", fmt.Sprintf(`take a directory of its own, as in "%s"`, example))
	default:
		return true
	}
	return false
}

// maxPath leaves room for names below it in what the kernel takes, 4096 bytes.
const maxPath = 1024

// place is where a directory is put before the task.
type place struct{ field, what, path string }

// overlap checks that no mount, output or directory of secrets lies at or within another.
func (c *checker) overlap(job *sheaf.Job) {
	var places []place
	add := func(p place) {
		if (&checker{}).mountPath("", "", p.path, "") { // what is wrong by itself is said already
			places = append(places, p)
		}
	}
	for i, in := range job.Inputs {
		add(place{fmt.Sprintf("inputs[%d].mount", i), "input " + quoted(in.Name), in.Mount})
	}
	for i, out := range job.Outputs {
		add(place{fmt.Sprintf("outputs[%d].path", i), "output " + quoted(out.Name), out.Path})
	}
	for _, p := range secretPlaces("task.secrets", job.Task.Secrets) {
		add(p)
	}
	for i, b := range places {
		for _, a := range places[:i] {
			if within(a.path, b.path) || within(b.path, a.path) {
				c.bad(b.field, fmt.Sprintf("%s of %s overlaps %s of %s", quoted(b.path), b.what, quoted(a.path), a.what), "", "give each a directory of its own, none within another")
			}
		}
	}
}

// sourceKind is a scheme that a source may have.
type sourceKind struct {
	name    string
	example string
}

// schemes are the kinds of source of the language.
var schemes = []sourceKind{
	{"file", "file:///data/photos"},
	{"s3", "s3://bucket/prefix/"},
	{"https", "https://host/path"},
	{"ipfs", "ipfs://CID"},
	{"car", "car:///data/photos.car"},
	{"job", "job://NAME/OUTPUT"},
}

func schemeNames() []string {
	var names []string
	for _, s := range schemes {
		names = append(names, s.name+"://")
	}
	return names
}

// scheme is what stands before "://", "" where that does not.
func scheme(s string) string {
	head, _, ok := strings.Cut(s, "://")
	if !ok || strings.ContainsAny(head, "/ ") {
		return ""
	}
	return strings.ToLower(head)
}

// fileURL checks the URL of a file that a driver needs.
func (c *checker) fileURL(field, name, s string) {
	if kind := scheme(s); kind == "job" {
		c.bad(field, fmt.Sprintf("%s %s is the result of a job", name, quoted(s)), "", "publish the file, and name it by file://, https://, s3://, ipfs:// or car://")
		return
	}
	c.locationURL(field, name, s)
}

// locationURL checks the URL of a source, or of a module.
func (c *checker) locationURL(field, name, s string) {
	if s == "" {
		c.bad(field, name+" is missing", "", fmt.Sprintf(`write %s = "file:///data/photos"`, name))
		return
	}
	kind := scheme(s)
	i := slices.IndexFunc(schemes, func(x sourceKind) bool { return x.name == kind })
	switch {
	case kind == "":
		c.bad(field, fmt.Sprintf("%s %s is not a URL", name, quoted(s)), "", "write file:// and the absolute path")
	case i < 0:
		c.bad(field, fmt.Sprintf("%s %s is of an unknown kind", name, quoted(s)), "", "known: "+strings.Join(schemeNames(), ", "))
	case strings.IndexFunc(s, func(r rune) bool { return r < 0x20 || r == 0x7f }) >= 0:
		c.bad(field, fmt.Sprintf("%s %s holds a control character", name, quoted(s)), "", "write it as %XX, or leave it out")
	case len(s) > maxURL:
		c.bad(field, fmt.Sprintf("%s is %d bytes long", name, len(s)), fmt.Sprintf("%d bytes", maxURL), "shorten it")
	default:
		u, err := url.Parse(s)
		onClients := kind == "file" || kind == "car"
		switch {
		case err != nil:
			c.bad(field, fmt.Sprintf("%s %s is no URL", name, quoted(s)), "", "write % as %25, as in "+schemes[i].example)
		case u.User != nil:
			c.bad(field, name+" holds a user or password", "", "credentials belong in the clients' configuration")
		case kind == "job":
			of, output, ok := sheaf.CutResult(s)
			if !ok || sheaf.CheckName("job", of) != nil || sheaf.CheckName("output", output) != nil {
				c.bad(field, fmt.Sprintf("%s %s names no output of a job", name, quoted(s)), "", "write it as in "+schemes[i].example+"; what lies below is chosen by the glob")
			}
		case onClients && u.Host != "" && u.Host != "localhost":
			c.bad(field, fmt.Sprintf("%s %s names a host", name, quoted(s)), "", "write three slashes and an absolute path, as in "+schemes[i].example)
		case onClients && (u.RawQuery != "" || kind == "file" && u.Fragment != "" || u.ForceQuery):
			c.bad(field, fmt.Sprintf("%s %s holds a ? or #", name, quoted(s)), "", "write ? as %3F and # as %23")
		case onClients && (!strings.HasPrefix(u.Path, "/") || climbs(u.Path)):
			c.bad(field, fmt.Sprintf("%s %s is not an absolute path without ..", name, quoted(s)), "", "write it as in "+schemes[i].example)
		case onClients && strings.IndexByte(u.Path, 0) >= 0:
			c.bad(field, fmt.Sprintf("%s %s holds a NUL", name, quoted(s)), "", "leave it out")
		case !onClients && u.Host == "":
			c.bad(field, fmt.Sprintf("%s %s is incomplete", name, quoted(s)), "", "write it as in "+schemes[i].example)
		}
	}
}

// maxURL is what browsers and proxies take.
const maxURL = 2048

// resolve makes URLs of the paths that a jobspec's author may write.
func (d *decoder) resolve(job *sheaf.Job) {
	for i := range job.Inputs {
		d.resolveURL(fmt.Sprintf("inputs[%d].source", i), &job.Inputs[i].Source)
	}
	d.resolveConfig("task.config", &job.Task)
	if job.Reduce != nil {
		d.resolveConfig("reduce.task.config", &job.Reduce.Task)
	}
}

func (d *decoder) resolveConfig(field string, task *sheaf.Task) {
	for _, a := range d.schemas[task.Driver].Attributes {
		s, ok := task.Config[a.Name].(string)
		if !ok || s == "" || !a.URL && a.Name != "image" {
			continue
		}
		if archive, p, ok := sheaf.CutArchive(s); ok {
			if scheme(p) == "" && d.absolute(field+"."+a.Name, &p) {
				task.Config[a.Name] = archive + p
			}
			continue
		}
		if a.URL && !isImage(a, s) {
			d.resolveURL(field+"."+a.Name, &s)
			task.Config[a.Name] = s
		}
	}
}

// resolveURL makes a file:// URL of a path, and the clean form of a file:// URL.
func (d *decoder) resolveURL(field string, s *string) {
	switch kind := scheme(*s); {
	case *s == "" || d.isSpoiled(field):
	case kind == "":
		if d.absolute(field, s) {
			*s = fileURL(*s)
		}
	case kind == "file":
		if u, err := url.Parse(*s); err == nil && (u.Host == "" || u.Host == "localhost") && u.RawQuery == "" && u.Fragment == "" && !u.ForceQuery && u.User == nil && strings.HasPrefix(u.Path, "/") && !climbs(u.Path) {
			*s = fileURL(path.Clean(u.Path))
		}
	}
}

func fileURL(p string) string { return (&url.URL{Scheme: "file", Path: p}).String() }

// absolute takes a relative path from the jobspec's folder.
func (d *decoder) absolute(field string, p *string) bool {
	if !strings.HasPrefix(*p, "/") {
		if d.dir == "" {
			rng, _ := d.locate(field)
			d.report(rng, &sheaf.Error{Class: sheaf.Invalid, Field: field, Msg: fmt.Sprintf("path %s is relative, and there is no folder to take it from", quoted(*p)), Hint: "write an absolute path"})
			return false
		}
		*p = path.Join(d.dir, *p)
	}
	*p = path.Clean(*p)
	return true
}
