package consensus

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/sheaf-run/agent/sheaf"
)

// ErrDamaged is wrapped by every error about bytes on disk that are not what
// was written. The store is left as it is.
var ErrDamaged = errors.New("damaged")

// ErrForeign is wrapped when a data directory belongs to another cluster,
// region or server, or to a newer version. It is left untouched.
var ErrForeign = errors.New("not this server's data directory")

var errSum = errors.New("it does not match its checksum")

// damaged names what is damaged, where, and the way out.
func damaged(file, what string, cause error) error {
	return &sheaf.Error{
		Class: sheaf.Internal,
		Field: file,
		Msg:   fmt.Sprintf("the raft store is damaged: %s in %s", what, file),
		Err:   fmt.Errorf("%w: %w", ErrDamaged, cause),
		Hint:  "with other servers alive, run `agent operator raft reset -data-dir " + dataDirOf(file) + "` and start this server: it takes the state from them; a lone server: restore " + filepath.Join(dataDirOf(file), "server") + " from a backup",
	}
}

// dataDirOf is the agent's data directory, in which file lies as server/raft/….
func dataDirOf(file string) string {
	for dir := filepath.Dir(file); dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		if filepath.Base(dir) == "raft" {
			return filepath.Dir(filepath.Dir(dir))
		}
	}
	return "DIR"
}

func foreign(dir, why string) error {
	return &sheaf.Error{
		Class: sheaf.Invalid,
		Field: "data_dir",
		Msg:   fmt.Sprintf("data directory %s cannot be used: %s", dir, why),
		Err:   ErrForeign,
		Hint:  "name another data directory; nothing in this one was changed",
	}
}
