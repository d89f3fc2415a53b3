package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/sheaf-run/agent/api"
	"github.com/sheaf-run/agent/server"
	"github.com/sheaf-run/agent/server/consensus"
)

// ResetServer lets the server of a data directory, which must not be running, begin anew in its cluster. It
// gives the place that its raft directory was moved to. See consensus.Reset.
func ResetServer(dataDir string, force bool) (moved string, err error) {
	dir := filepath.Join(dataDir, "server")
	path := filepath.Join(dir, "id")
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read the server's ID: %w", err)
	}
	id := consensus.NewID()
	if end := strings.LastIndexByte(string(old), '-'); end > 0 {
		id = string(api.NewRunID(string(old[:end])))
	}
	// The ID goes first: whenever this is interrupted, no empty log comes under the old one.
	if len(old) > 0 {
		if err := os.WriteFile(path, []byte(id), 0o600); err != nil {
			return "", fmt.Errorf("write the server's new ID: %w", err)
		}
	}
	moved, err = consensus.Reset(dir, id, force)
	if err != nil && moved == "" && len(old) > 0 {
		err = errors.Join(err, os.WriteFile(path, old, 0o600))
	}
	return moved, err
}

// RecoverServer makes a cluster of the servers that remain, by their addresses of RPC by ID, over the data directory
// of one that is not running. It gives the index of its last entry.
func RecoverServer(dataDir string, remaining map[string]string, log *slog.Logger) (uint64, error) {
	var peers []consensus.Peer
	for id, address := range remaining {
		peers = append(peers, consensus.Peer{ID: id, Address: address, Voter: true})
	}
	a, err := server.Recover(filepath.Join(dataDir, "server"), peers, log)
	return a.Index, err
}

// InspectSnapshot verifies a saved snapshot and says what is in it.
func InspectSnapshot(path string) (api.SnapshotInfo, error) {
	got, err := server.Inspect(path)
	if err != nil {
		return api.SnapshotInfo{}, err
	}
	info := api.SnapshotInfo{
		Index: got.Archive.Index, Term: got.Archive.Term, Time: time.UnixMilli(got.State.TimeMs).UTC(), Cluster: got.State.Cluster.ID,
		Region: got.State.Cluster.Region, Runs: got.State.Runs, Nodes: got.State.Nodes, Bytes: got.Archive.Size,
	}
	for _, x := range got.State.Sections {
		info.Tables = append(info.Tables, api.SnapshotTable{Name: x.Kind, Rows: x.Count, Bytes: x.Bytes})
	}
	return info, nil
}
