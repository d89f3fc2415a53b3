package jobspec

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/sheaf-run/agent/sheaf"
)

// secretDir is where the file of a secret is put that nothing is said of.
const secretDir = "/secrets"

// secret reads a secret block.
func (b *block) secret() sheaf.TaskSecret {
	s := sheaf.TaskSecret{Name: b.label}
	b.text("env", &s.Env)
	b.treePath("file", &s.File)
	b.end()
	return s
}

// secretDefaults makes a file of each secret that is neither file nor variable.
func secretDefaults(field string, list []sheaf.TaskSecret, written func(string) bool) {
	for i := range list {
		at := fmt.Sprintf("%s[%d]", field, i)
		if s := &list[i]; s.Env == "" && s.File == "" && !written(at+".env") && !written(at+".file") {
			s.File = path.Join(secretDir, s.Name)
		}
	}
}

// secrets checks what a task does with secrets: every variable and every file
// has one meaning. Whether they are granted is the servers' to say.
func (c *checker) secrets(field string, t *sheaf.Task) {
	if len(t.Secrets) > sheaf.MaxTaskSecrets {
		c.bad(field, fmt.Sprintf("there are %d secrets", len(t.Secrets)), fmt.Sprint(sheaf.MaxTaskSecrets), "put what belongs together into one secret")
	}
	vars, files, shown := map[string]string{}, map[string]string{}, map[string]string{}
	for i, s := range t.Secrets {
		at := fmt.Sprintf("%s[%d]", field, i)
		c.name(at+".name", "secret", s.Name)
		switch {
		case s.Env != "" && s.File != "":
			c.bad(at, fmt.Sprintf("secret %s is a variable and a file at once", quoted(s.Name)), "", "write a block for each, with the same name")
		case s.Env == "" && s.File == "":
			c.bad(at, fmt.Sprintf("secret %s is neither a variable nor a file", quoted(s.Name)), "", `write env = "TOKEN" or file = "/secrets/token"`)
		case s.Env != "":
			c.secretEnv(at+".env", s, t.Env, vars)
		default:
			c.secretFile(at+".file", s, files)
			v := variableName("SHEAF_SECRET_", s.Name)
			if other, ok := shown[v]; ok {
				c.bad(at+".name", fmt.Sprintf("files of the secrets %s and %s meet in the variable %s", quoted(other), quoted(s.Name), v), "", "give one of them another name, or make it a variable")
			}
			shown[v] = s.Name
		}
	}
	if name, ok := t.Config[sheaf.RegistrySecret].(string); ok {
		c.name(parentOf(field)+".config."+sheaf.RegistrySecret, "secret", name)
	}
}

func (c *checker) secretEnv(at string, s sheaf.TaskSecret, env, vars map[string]string) {
	c.envName(at, s.Env)
	if other, ok := vars[s.Env]; ok {
		c.bad(at, fmt.Sprintf("secrets %s and %s are the same variable %s", quoted(other), quoted(s.Name), quoted(s.Env)), "", "give one of them another")
	}
	vars[s.Env] = s.Name
	if _, ok := env[s.Env]; ok {
		c.bad(at, fmt.Sprintf("variable %s stands in env too", quoted(s.Env)), "", "leave one of the two out")
	}
}

func (c *checker) secretFile(at string, s sheaf.TaskSecret, files map[string]string) {
	if !c.mountPath(at, "file", s.File, secretDir+"/"+s.Name) {
		return
	}
	if dir := path.Dir(s.File); dir == "/" || slices.Contains(systemDirs, dir) {
		c.bad(at, fmt.Sprintf("file %s lies in %s, which would hold nothing but secrets then", quoted(s.File), quoted(dir)), "", fmt.Sprintf(`put it into a directory of its own, as in "%s/%s"`, secretDir, s.Name))
		return
	}
	if other, ok := files[s.File]; ok {
		c.bad(at, fmt.Sprintf("secrets %s and %s are the same file %s", quoted(other), quoted(s.Name), quoted(s.File)), "", "give one of them another")
	}
	files[s.File] = s.Name
}

// secretPlaces are the directories of a task's secrets, each once: they are mounted like an input.
func secretPlaces(field string, list []sheaf.TaskSecret) []place {
	var all []place
	for i, s := range list {
		dir := path.Dir(s.File)
		if s.File == "" || slices.ContainsFunc(all, func(p place) bool { return p.path == dir }) {
			continue
		}
		all = append(all, place{fmt.Sprintf("%s[%d].file", field, i), "secret " + quoted(s.Name), dir})
	}
	return all
}

func (w *writer) secret(s sheaf.TaskSecret) {
	w.open("secret", s.Name)
	w.text("env", s.Env, "")
	def := ""
	if s.Env == "" {
		def = path.Join(secretDir, s.Name)
	}
	w.text("file", s.File, def)
	w.close()
}

// isTaskVariable reports whether every task is given a variable of that name.
func isTaskVariable(name string) bool {
	return slices.Contains(reserved, name) || slices.ContainsFunc([]string{"SHEAF_INPUT_", "SHEAF_OUTPUT_", "SHEAF_SECRET_"}, func(p string) bool { return strings.HasPrefix(name, p) })
}
