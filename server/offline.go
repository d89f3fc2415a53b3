package server

import (
	"fmt"
	"log/slog"
	"path/filepath"

	"github.com/sheaf-run/agent/server/consensus"
	"github.com/sheaf-run/agent/server/events"
	"github.com/sheaf-run/agent/server/state"
)

// Recover makes the servers that remain a cluster again, over the data directory of a server that is not running.
// See consensus.Recover.
func Recover(dataDir string, peers []consensus.Peer, log *slog.Logger) (consensus.Archive, error) {
	chunks, err := state.OpenFileChunks(filepath.Join(dataDir, "manifests"))
	if err != nil {
		return consensus.Archive{}, fmt.Errorf("open the shard manifests: %w", err)
	}
	m := newMachine(state.New(chunks), events.New(), make(chan string, 1))
	return consensus.Recover(dataDir, peers, m, log)
}
