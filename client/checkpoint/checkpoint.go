// Package checkpoint remembers, in a bbolt file, what a restarted client must
// know of executions that may have outlived it: how their driver knows them,
// where their directories are, and the spec of their run. Only what has run for a while
// comes here; short executions never touch the file.
//
// A batch is durable when the call returns. All methods may be called
// concurrently.
package checkpoint

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/sheaf-run/agent/data/output"
	"github.com/sheaf-run/agent/sheaf"
)

// openTimeout bounds the wait for another process to let go of the file.
const openTimeout = 2 * time.Second

var (
	executions = []byte("executions") // execution ID → JSON of Execution
	runs       = []byte("runs")       // run ID → RunSpec, as it came over the wire
	meta       = []byte("meta")
)

// Execution is one that may outlive the client.
type Execution struct {
	Run        sheaf.RunID  `json:"run"`
	Partition  uint32       `json:"partition"`
	Attempt    uint32       `json:"attempt"`
	Generation uint32       `json:"generation"`
	Driver     string       `json:"driver"`
	State      []byte       `json:"state"`   // the driver's
	Started    time.Time    `json:"started"` // the timeout counts from here
	Outputs    []output.Dir `json:"outputs,omitempty"`
}

// File is the checkpoint file of one client.
type File struct{ db *bbolt.DB }

// Open opens the file at path and makes it if it is not there. A file that
// another process holds is a Conflict; one that is damaged is moved aside, since what it lists
// can be found by the drivers too, and is reported as the first result.
func Open(path string) (damaged error, f *File, err error) {
	f, err = open(path)
	if err == nil || sheaf.ClassOf(err) == sheaf.Conflict {
		return nil, f, err
	}
	if !errors.Is(err, bolterrors.ErrInvalid) && !errors.Is(err, bolterrors.ErrChecksum) && !errors.Is(err, bolterrors.ErrVersionMismatch) {
		return nil, nil, err
	}
	damaged = err
	if err := os.Rename(path, path+".damaged"); err != nil {
		return damaged, nil, fmt.Errorf("set the damaged checkpoint aside: %w", err)
	}
	f, err = open(path)
	return damaged, f, err
}

func open(path string) (*File, error) {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: openTimeout, NoFreelistSync: true})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, &sheaf.Error{Class: sheaf.Conflict, Msg: fmt.Sprintf("another process uses %s", filepath.Dir(path)), Hint: "stop it, or give this agent a data directory of its own"}
	}
	if err != nil {
		return nil, fmt.Errorf("open checkpoint %s: %w", path, err)
	}
	// Looked at before anything is written: a newer version's file is left as it is.
	whole := false
	err = db.View(func(tx *bbolt.Tx) error {
		b := tx.Bucket(meta)
		whole = tx.Bucket(executions) != nil && tx.Bucket(runs) != nil && b != nil && b.Get(formatKey) != nil
		return readable(b)
	})
	if err != nil {
		return nil, fmt.Errorf("open checkpoint %s: %w", path, errors.Join(err, db.Close()))
	}
	if whole { // nor is one that turns out to be of another cluster
		return &File{db: db}, nil
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{executions, runs, meta} {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		return tx.Bucket(meta).Put(formatKey, []byte(strconv.Itoa(format)))
	})
	if err != nil {
		return nil, fmt.Errorf("open checkpoint %s: %w", path, errors.Join(err, db.Close()))
	}
	return &File{db: db}, nil
}

// format is raised when versions before could not make sense of the file.
const format = 1

var formatKey = []byte("format")

// readable refuses the file of a newer version. b is its bucket meta.
func readable(b *bbolt.Bucket) error {
	if b == nil {
		return nil // made just now
	}
	text := string(b.Get(formatKey))
	if n, err := strconv.Atoi(text); text != "" && (err != nil || n > format) {
		return &sheaf.Error{
			Class: sheaf.Conflict, Field: "data_dir", Msg: fmt.Sprintf("the client's data directory was written by a newer version (format %s, this one reads %d)", text, format),
			Hint: "start that version, or give this one a data directory of its own",
		}
	}
	return nil
}

// Close lets go of the file.
func (f *File) Close() error { return f.db.Close() }

// Save writes executions and the specs of their runs, in one batch.
func (f *File) Save(list []Execution, specs map[sheaf.RunID][]byte) error {
	err := f.db.Update(func(tx *bbolt.Tx) error {
		for id, spec := range specs {
			if err := tx.Bucket(runs).Put([]byte(id), spec); err != nil {
				return err
			}
		}
		b := tx.Bucket(executions)
		for _, e := range list {
			v, err := json.Marshal(e)
			if err != nil {
				return err
			}
			id := sheaf.NewExecutionID(e.Run, int(e.Partition), e.Attempt)
			if err := b.Put([]byte(id), v); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("write checkpoint of %d executions: %w", len(list), err)
	}
	return nil
}

// Remove forgets executions by ID. What is not there is no error.
func (f *File) Remove(ids []string) error {
	if len(ids) == 0 {
		return nil // and the file stays as it is, which may be another cluster's
	}
	err := f.db.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket(executions)
		for _, id := range ids {
			if err := b.Delete([]byte(id)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("remove %d executions from the checkpoint: %w", len(ids), err)
	}
	return nil
}

// RemoveRun forgets the spec of a run that is over.
func (f *File) RemoveRun(id sheaf.RunID) error {
	known := false
	err := f.db.View(func(tx *bbolt.Tx) error {
		known = tx.Bucket(runs).Get([]byte(id)) != nil
		return nil
	})
	if err == nil && known {
		err = f.db.Update(func(tx *bbolt.Tx) error { return tx.Bucket(runs).Delete([]byte(id)) })
	}
	if err != nil {
		return fmt.Errorf("remove run %s from the checkpoint: %w", id, err)
	}
	return nil
}

// Load reads all executions, by ID, and the specs of runs. An entry that cannot be read is
// left out: the drivers find what it named.
func (f *File) Load() (list []Execution, specs map[sheaf.RunID][]byte, err error) {
	specs = map[sheaf.RunID][]byte{}
	err = f.db.View(func(tx *bbolt.Tx) error {
		err := tx.Bucket(executions).ForEach(func(_, v []byte) error {
			var e Execution
			if json.Unmarshal(v, &e) == nil {
				list = append(list, e)
			}
			return nil
		})
		if err != nil {
			return err
		}
		return tx.Bucket(runs).ForEach(func(k, v []byte) error {
			specs[sheaf.RunID(k)] = bytes.Clone(v)
			return nil
		})
	})
	if err != nil {
		return nil, nil, fmt.Errorf("read checkpoint: %w", err)
	}
	return list, specs, nil
}

// Value reads a setting that the client keeps beside its executions; "" where
// there is none.
func (f *File) Value(name string) (value string, err error) {
	err = f.db.View(func(tx *bbolt.Tx) error {
		value = string(tx.Bucket(meta).Get([]byte(name)))
		return nil
	})
	return value, err
}

// SetValue writes a setting.
func (f *File) SetValue(name, value string) error {
	return f.db.Update(func(tx *bbolt.Tx) error { return tx.Bucket(meta).Put([]byte(name), []byte(value)) })
}
