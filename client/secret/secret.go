// Package secret keeps the secrets of the runs that a client has: values in
// memory, files in a file system that is memory too, and nothing on disk. It also keeps them
// out of logs and messages.
package secret

import (
	"bytes"
	"fmt"
	"path"
	"slices"

	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/sheaf"
)

// Set is the secrets of a run's task. It never changes, and may be used concurrently.
type Set struct {
	values  map[string]sheaf.Secret
	env     []string // NAME=value, sorted
	matcher *matcher // nil where nothing is to be masked
}

// NewSet makes the set of a task from what a server gave. A secret that is missing, or that
// cannot be a variable, is an error.
func NewSet(job *sheaf.Job, given []*wire.SecretValue) (*Set, error) {
	s := &Set{values: map[string]sheaf.Secret{}}
	var values [][]byte
	for _, v := range given {
		s.values[v.GetName()] = sheaf.NewSecret(v.GetValue())
		values = append(values, v.GetValue())
	}
	for _, name := range job.SecretNames() {
		if _, ok := s.values[name]; !ok {
			return nil, &sheaf.Error{Class: sheaf.Internal, Msg: fmt.Sprintf("the server did not give secret %q", name)}
		}
	}
	for _, t := range job.Task.Secrets {
		if t.Env == "" {
			continue
		}
		v := s.values[t.Name].Reveal()
		if bytes.IndexByte(v, 0) >= 0 {
			return nil, &sheaf.Error{Class: sheaf.Invalid, Field: "task.secrets", Msg: fmt.Sprintf("secret %q holds a NUL character, which no variable can", t.Name), Hint: "make it a file"}
		}
		s.env = append(s.env, t.Env+"="+string(v))
	}
	slices.Sort(s.env)
	s.matcher = newMatcher(maskable(values))
	return s, nil
}

// Env adds the variables of the task to env, which is sorted, and stays so.
func (s *Set) Env(env []string) []string {
	if s == nil || len(s.env) == 0 {
		return env
	}
	env = append(env, s.env...)
	slices.Sort(env)
	return env
}

// Registry is the value for the registry that the task's image comes from; nil without one.
func (s *Set) Registry(task *sheaf.Task) []byte {
	if s == nil {
		return nil
	}
	name, _ := task.Config[sheaf.RegistrySecret].(string)
	return s.values[name].Reveal()
}

// Masker makes the masker of one stream.
func (s *Set) Masker() *Masker {
	if s == nil {
		return &Masker{}
	}
	return &Masker{m: s.matcher}
}

// Mask is text with *** in place of secrets.
func (s *Set) Mask(text string) string {
	if s == nil || s.matcher == nil {
		return text
	}
	k := s.Masker()
	out := append([]byte(nil), k.Write([]byte(text))...)
	return string(append(out, k.End()...))
}

// FileVariable names the variable that says where a secret's file is.
const FileVariable = "SHEAF_SECRET_"

// directories are those that the files of a task's secrets lie in, as the task sees them, sorted.
func directories(task *sheaf.Task) []string {
	var dirs []string
	for _, t := range task.Secrets {
		if t.File != "" {
			dirs = append(dirs, path.Dir(t.File))
		}
	}
	slices.Sort(dirs)
	return slices.Compact(dirs)
}

// HasFiles reports whether a task has secrets that are files.
func HasFiles(task *sheaf.Task) bool {
	return slices.ContainsFunc(task.Secrets, func(t sheaf.TaskSecret) bool { return t.File != "" })
}

// Withheld stands in the log of an execution whose secrets could not be read again
// after a restart of the agent, so that nothing of it could be masked.
const Withheld = "\n[… what it printed is withheld: the secrets of its job could not be read, to mask them …]\n"

// Needed reports whether a job uses secrets.
func Needed(job *sheaf.Job) bool { return len(job.SecretNames()) > 0 }
