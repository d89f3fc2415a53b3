package command

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/sheaf-run/agent/sheaf"
)

// lastFile holds the ID of the run that this person submitted last.
func lastFile() (string, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "sheaf", "last"), nil
}

// rememberLast notes what `last` means from now on. Failing to is no reason to fail a submission.
func rememberLast(id sheaf.RunID) {
	path, err := lastFile()
	if err != nil {
		return
	}
	if os.MkdirAll(filepath.Dir(path), 0o700) == nil {
		_ = os.WriteFile(path, []byte(id), 0o600)
	}
}

// runRef resolves `last`; everything else the API resolves.
func runRef(name string) (string, error) {
	if name != "last" {
		if err := sheaf.CheckName("run", name); err != nil {
			return "", err
		}
		return name, nil
	}
	path, err := lastFile()
	if err != nil {
		return "", fmt.Errorf("find the last submission: %w", err)
	}
	b, err := os.ReadFile(path)
	if err != nil || strings.TrimSpace(string(b)) == "" {
		return "", usage("nothing has been submitted from here yet: `agent job list` shows what there is")
	}
	return strings.TrimSpace(string(b)), nil
}
