package consensus

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"github.com/sheaf-run/agent/sheaf"
)

// directoryFormat is raised when a data directory written from then on cannot be
// read by versions before.
const directoryFormat = 1

// lockWait is how long an agent that is being replaced may take to let go of
// its directory.
const lockWait = time.Second

// lockPause is the pause between tries: the kernel tells nobody when a lock is let go.
const lockPause = 10 * time.Millisecond

// Identity says whose data directory it is. It is written before anything else
// and read before anything is opened.
type Identity struct {
	Format  int    `json:"format"`
	Server  string `json:"server"` // ID among the servers
	Region  string `json:"region"`
	Cluster string `json:"cluster,omitempty"` // once known
	Opened  bool   `json:"opened"`            // the log was made; before that nothing in it was ever acknowledged
}

// NewID makes a random ID, 32 hexadecimal digits.
func NewID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// ReadIdentity gives the server's identity in a data directory, making one
// where there is none yet. id may be empty: then it is what stands there, or a new one. Another
// server's or region's directory, or a newer version's, is ErrForeign and left untouched.
func ReadIdentity(dataDir, id, region string) (Identity, error) {
	path := filepath.Join(dataDir, "raft", "identity.json")
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(filepath.Join(dataDir, "raft", logName)); err == nil {
			return Identity{}, damaged(path, "the identity file", fs.ErrNotExist)
		}
		if id == "" {
			id = NewID()
		}
		it := Identity{Format: directoryFormat, Server: id, Region: region}
		return it, it.write(dataDir)
	}
	if err != nil {
		return Identity{}, fmt.Errorf("read the server's identity: %w", err)
	}
	var form struct {
		Identity
		Sum string `json:"sum"`
	}
	if err := json.Unmarshal(text, &form); err != nil {
		return Identity{}, damaged(path, "the identity file", err)
	}
	it := form.Identity
	switch {
	case it.Format > directoryFormat:
		return Identity{}, foreign(dataDir, fmt.Sprintf("it was written by a newer version (format %d, this one reads %d)", it.Format, directoryFormat))
	case form.Sum != it.sum():
		return Identity{}, damaged(path, "the identity file", errSum)
	case it.Region != region:
		return Identity{}, foreign(dataDir, fmt.Sprintf("it belongs to region %q, not %q", it.Region, region))
	case id != "" && it.Server != id:
		return Identity{}, foreign(dataDir, fmt.Sprintf("it belongs to server %q, not %q", it.Server, id))
	}
	return it, nil
}

func (it Identity) sum() string {
	return fmt.Sprintf("%08x", crc(fmt.Sprintf("%d %q %q %q %t", it.Format, it.Server, it.Region, it.Cluster, it.Opened)))
}

func (it Identity) write(dataDir string) error {
	dir := filepath.Join(dataDir, "raft")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the raft directory: %w", err)
	}
	text, err := json.Marshal(struct {
		Identity
		Sum string `json:"sum"`
	}{it, it.sum()})
	if err != nil {
		return fmt.Errorf("encode the server's identity: %w", err)
	}
	path := filepath.Join(dir, "identity.json")
	f, err := os.OpenFile(path+".tmp", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("write the server's identity: %w", err)
	}
	_, err = f.Write(append(text, '\n'))
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(path+".tmp", path)
	}
	if err != nil {
		return fmt.Errorf("write the server's identity: %w", err)
	}
	return syncDir(dir)
}

// logName is the file of the log in the raft directory.
const logName = "log.db"

// lockDirectory keeps a second agent out until the file is closed.
func lockDirectory(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the raft directory: %w", err)
	}
	for deadline := time.Now().Add(lockWait); ; time.Sleep(lockPause) {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) || time.Now().After(deadline) {
			break
		}
	}
	if err != nil {
		f.Close()
		return nil, &sheaf.Error{Class: sheaf.Conflict, Field: "data_dir", Msg: fmt.Sprintf("raft directory %s is in use by another agent", dir), Err: err, Hint: "stop that agent, or name another data directory"}
	}
	return f, nil
}

// openLog opens the log's file once its pages are known to be sound. Whatever bbolt
// may panic with all the same becomes an error that names the file.
func openLog(path string) (s store, err error) {
	defer func() {
		if r := recover(); r != nil {
			s, err = nil, damaged(path, "the file", fmt.Errorf("%v", r))
		}
	}()
	f, err := os.Open(path)
	if err == nil {
		st, statErr := f.Stat()
		if statErr == nil && st.Size() > 0 {
			err = checkPages(f)
		}
		f.Close()
		if errors.Is(err, errPages) {
			return nil, damaged(path, "the file", err)
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("open the raft log: %w", err)
	}
	bolt, err := raftboltdb.New(raftboltdb.Options{
		Path: path,
		// The list of free pages is rebuilt when opened rather than written with every entry.
		BoltOptions: &bbolt.Options{Timeout: lockWait, NoFreelistSync: true, FreelistType: bbolt.FreelistMapType, InitialMmapSize: initialMmap},
	})
	if err != nil {
		return nil, fmt.Errorf("open the raft log %s: %w", path, err)
	}
	return bolt, nil
}

// initialMmap is how much address space the log maps from the start: growing
// the map stops readers and writers. It costs no memory.
const initialMmap = 256 << 20
