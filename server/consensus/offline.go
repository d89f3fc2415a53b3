package consensus

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/raft"

	"github.com/sheaf-run/agent/sheaf"
)

// serversName is the file that lists the servers as this one last knew them. It is
// for people and for Reset, which cannot ask a damaged log.
const serversName = "servers.json"

// writeServers notes a configuration. It is no part of raft's own state: a failure is logged, no more.
func (n *Node) writeServers(c raft.Configuration) {
	if n.config.DataDir == "" || len(c.Servers) == 0 {
		return
	}
	peers := archiveOf(&raft.SnapshotMeta{Configuration: c}).Servers
	text, err := json.MarshalIndent(peers, "", "  ")
	if err == nil {
		path := filepath.Join(n.config.DataDir, "raft", serversName)
		if err = os.WriteFile(path+".tmp", append(text, '\n'), 0o600); err == nil {
			err = os.Rename(path+".tmp", path)
		}
	}
	if err != nil {
		n.config.Logger.Warn("note the cluster's servers", "error", err)
	}
}

// Reset moves a server's raft directory aside and leaves it, under a new ID, as one that has nothing yet and belongs
// to the same cluster, whose leader takes it in. A voter must not come back without its votes and entries under
// its old ID: what it acknowledged would count as being there. Without force it is
// refused where no other server is known to have the state. It gives the place of what was moved and the new ID.
func Reset(dataDir, newID string, force bool) (moved string, err error) {
	dir := filepath.Join(dataDir, "raft")
	lock, err := lockDirectory(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return "", &sheaf.Error{Class: sheaf.NotFound, Field: "data-dir", Msg: fmt.Sprintf("%s holds no server's data", dataDir), Hint: "name the server folder's parent: the data_dir of the configuration"}
	}
	if err != nil {
		return "", err
	}
	defer lock.Close()
	it, err := peekIdentity(dir)
	if err != nil && !errors.Is(err, ErrDamaged) {
		return "", err
	}
	others := 0
	if err != nil {
		others = -1 // one of those listed is this one
	}
	text, _ := os.ReadFile(filepath.Join(dir, serversName))
	var peers []Peer
	if json.Unmarshal(text, &peers) == nil {
		for _, p := range peers {
			if p.ID != it.Server && p.Voter {
				others++
			}
		}
	}
	if others <= 0 && !force {
		return "", &sheaf.Error{Class: sheaf.Conflict, Field: "data-dir", Msg: "no other server is known that has this one's state: resetting it would lose everything", Hint: "restore the directory from a backup; with -force it begins empty all the same"}
	}
	moved = fmt.Sprintf("%s.reset-%s", dir, time.Now().UTC().Format("20060102T150405Z"))
	if err := os.Rename(dir, moved); err != nil {
		return "", fmt.Errorf("move the raft directory aside: %w", err)
	}
	if it.Region == "" {
		return moved, nil // the file is damaged: it begins as a new server does, which finds its cluster by gossip
	}
	return moved, Identity{Format: directoryFormat, Server: newID, Region: it.Region, Cluster: it.Cluster}.write(dataDir)
}

// peekIdentity reads whose directory it is, whoever asks.
func peekIdentity(dir string) (Identity, error) {
	path := filepath.Join(dir, "identity.json")
	text, err := os.ReadFile(path)
	var form struct {
		Identity
		Sum string `json:"sum"`
	}
	if err == nil {
		err = json.Unmarshal(text, &form)
	}
	if err == nil && form.Sum != form.Identity.sum() {
		err = errSum
	}
	if err != nil {
		return Identity{}, damaged(path, "the identity file", err)
	}
	return form.Identity, nil
}

// Recover makes the servers that remain a cluster again when a quorum is lost for good. It is run, with the agent
// stopped, on each of them with the same list; what this server's log holds counts as
// committed from then on. machine is an empty one.
func Recover(dataDir string, peers []Peer, machine Machine, log *slog.Logger) (Archive, error) {
	it, err := peekIdentity(filepath.Join(dataDir, "raft"))
	if errors.Is(err, fs.ErrNotExist) {
		return Archive{}, &sheaf.Error{Class: sheaf.NotFound, Field: "data-dir", Msg: fmt.Sprintf("%s holds no server's data", dataDir), Hint: "name the data_dir of the configuration"}
	}
	if err != nil {
		return Archive{}, err
	}
	var c raft.Configuration
	self := false
	for _, p := range peers {
		suffrage := raft.Voter
		if !p.Voter {
			suffrage = raft.Nonvoter
		}
		self = self || p.ID == it.Server && p.Voter
		c.Servers = append(c.Servers, raft.Server{ID: raft.ServerID(p.ID), Address: raft.ServerAddress(p.Address), Suffrage: suffrage})
	}
	if !self {
		return Archive{}, &sheaf.Error{Class: sheaf.Invalid, Field: "peers", Msg: fmt.Sprintf("this server, %s, is not among them", it.Server), Hint: "list every server that remains, this one included, the same on each"}
	}
	n := &Node{config: Config{Identity: it, DataDir: dataDir, Logger: log}, failed: make(chan error, 1), grown: make(chan struct{}, 1)}
	n.cluster.Store(&it.Cluster)
	closeStore, _, err := n.open()
	if err != nil {
		return Archive{}, err
	}
	defer closeStore()
	conf := n.raftConfig(true)
	var failure error
	err = raft.RecoverCluster(conf, &adapter{machine: machine, fatal: func(err error) { failure = err }}, n.store, n.store, n.snaps, nowhere{}, c)
	if err = errors.Join(failure, err); err != nil {
		return Archive{}, fmt.Errorf("recover the cluster: %w", err)
	}
	n.writeServers(c)
	metas, err := n.snaps.List()
	if err != nil || len(metas) == 0 {
		return Archive{}, fmt.Errorf("recover the cluster: no snapshot came of it: %w", err)
	}
	return archiveOf(metas[0]), nil
}

// nowhere is the transport of a raft that is not running.
type nowhere struct{ raft.Transport }
