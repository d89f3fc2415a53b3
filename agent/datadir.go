package agent

import (
	"fmt"
	"os"

	"github.com/sheaf-run/agent/sheaf"
)

// checkDataDir makes the data directory where it is missing, and refuses a place
// that cannot be one before anything is opened in it.
func checkDataDir(dir string) error {
	if dir == "" {
		return nil
	}
	err := os.MkdirAll(dir, 0o711)
	if err == nil {
		var f *os.File
		if f, err = os.CreateTemp(dir, ".writable-*"); err == nil {
			f.Close()
			err = os.Remove(f.Name())
		}
	}
	if err != nil {
		return &sheaf.Error{Class: sheaf.Invalid, Field: "data_dir", Msg: fmt.Sprintf("data directory %s cannot be used", dir), Err: err, Hint: "name a directory that the agent's user can write to"}
	}
	return nil
}
