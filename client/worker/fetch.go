package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/sheaf-run/agent/data/source"
	"github.com/sheaf-run/agent/data/stage"
	"github.com/sheaf-run/agent/sheaf"
)

// brought are the files of a task that were fetched for its driver to prepare.
type brought struct {
	config  []byte   // names them where they lie here
	release []func() // lets the cache have them back
	of      string   // where they come from, for people
}

func (b *brought) done() {
	for _, f := range b.release {
		f()
	}
}

// bring fetches the files that a task's driver needs and that lie elsewhere. The driver copies or imports
// what it keeps, so that they are given back once it has prepared.
func (w *Worker) bring(ctx context.Context, job *sheaf.Job, config []byte) (brought, error) {
	b := brought{config: config}
	files := sheaf.TaskFiles(&job.Task)
	if len(files) == 0 {
		return b, nil
	}
	var args map[string]json.RawMessage
	if err := json.Unmarshal(config, &args); err != nil {
		return b, fmt.Errorf("read the task's config: %w", err)
	}
	for _, f := range files {
		host, release, err := fetchOne(ctx, f.URL, w.cfg.Sources)
		if err != nil {
			b.done()
			return b, fmt.Errorf("fetch the %s: %w", f.Argument, err)
		}
		b.release = append(b.release, release)
		b.of = f.URL
		if args[f.Argument], err = json.Marshal(f.Prefix + sheaf.EscapeTemplate(host)); err != nil {
			b.done()
			return b, err
		}
	}
	var err error
	if b.config, err = json.Marshal(args); err != nil {
		b.done()
	}
	return b, err
}

// errSecond ends a listing that has more than one file.
var errSecond = errors.New("there is a second")

// fetchOne brings the one file of a source here.
func fetchOne(ctx context.Context, rawURL string, from source.Config) (host string, release func(), err error) {
	s, err := source.Open(rawURL, from)
	if err != nil {
		return "", nil, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	far, ok := s.(stage.Fetcher)
	if !ok {
		return "", nil, fmt.Errorf("source %q fetches nothing", rawURL)
	}
	var file *sheaf.Entry
	err = s.List(ctx, source.Scope{}, func(entries []sheaf.Entry) error {
		for _, e := range entries {
			if file != nil || e.Kind != sheaf.EntryFile {
				return errSecond
			}
			file = &e
		}
		return nil
	})
	switch {
	case errors.Is(err, errSecond) || err == nil && file == nil:
		return "", nil, &sheaf.Error{Class: sheaf.Invalid, Field: "task.config", Msg: fmt.Sprintf("%q is a directory, and a file is needed", rawURL), Hint: "name the file itself"}
	case err != nil:
		return "", nil, err
	}
	return far.Fetch(ctx, file.Path, file.Identity())
}
