package client

import (
	"cmp"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/sheaf-run/agent/client/room"
	"github.com/sheaf-run/agent/data/source/https"
	"github.com/sheaf-run/agent/data/source/s3"
	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/sheaf"
)

// Discovery finds the other members of the region. The agent answers from
// gossip; what it says is a hint, and may be stale.
type Discovery interface {
	// Servers lists the RPC addresses (host:port) of the region's servers, the
	// likeliest leader first. An empty list means that none is known yet.
	Servers() []string

	// NodeAddress is the RPC address of another client, by its ID.
	NodeAddress(id sheaf.NodeID) (address string, ok bool)
}

// Driver is a task driver that the client may start.
type Driver struct {
	Name    string   // as jobs name it
	Command []string // of the plugin's process: program and arguments
	Env     []string // NAME=value, beside the few that every plugin gets
	// Checksum is the sha256 of the program, checked at every start; nil where it is the
	// agent's own.
	Checksum []byte
	// Options are what plugin.Options gives in its process.
	Options map[string]string
}

// FileRoot is a directory of this machine that jobs may read.
type FileRoot struct {
	Path     string // absolute; "/" allows any
	Shared   bool   // every client that lists it sees the same files
	Writable bool   // results may be published there
}

// Config is what a client is made of. Zero fields take the defaults named.
type Config struct {
	Name       string // of the node; the host's name
	Region     string // "global"
	Datacenter string // "dc1"
	Class      string

	// Address is host:port of the agent's RPC listener, on which the agent
	// registers [Client.Nodes].
	Address string

	// DataDir holds all that outlives a restart: the node's ID, durable
	// results, checkpoints. Empty means a temporary directory that Run removes.
	DataDir string

	// Resources override what the fingerprint measures, field by field.
	Resources sheaf.Resources
	// Reserve is kept back from executions for the rest of the machine.
	Reserve sheaf.Resources
	// Slots, over 0, makes capacity that many executions whatever they ask
	// for. It is for benchmarks with drivers that use nothing.
	Slots int

	Attributes map[string]string // added to the fingerprint's
	Drivers    []Driver
	FileRoots  []FileRoot
	Buckets    []s3.Bucket  // that jobs may read, in the order in which they are tried
	Web        []https.Host // that jobs may read from, likewise
	Gateways   []string     // URLs of gateways to IPFS, likewise

	// CacheBytes bounds what is kept of files fetched from elsewhere; 0 is DefaultCache.
	CacheBytes int64

	// Room says how full the disk of DataDir may be before what can be spared there goes; zero
	// fields are DefaultRoom. LookEvery is how often that is looked at; 0 is DefaultLook.
	Room      room.Limits
	LookEvery time.Duration

	Discovery Discovery
	// Dialer connects to servers and other clients; its zero value speaks plain text.
	Dialer wire.Dialer
	Logger *slog.Logger // discards
}

// DefaultCache is how many bytes of fetched files a node keeps unless told
// otherwise: enough for the inputs of the runs of a day, little beside the disks of today.
const DefaultCache = 20 << 30

// DefaultRoom leaves work under way some room: a tenth of the disk.
var DefaultRoom = room.Limits{Disk: 90, Inodes: 90}

// DefaultLook is soon enough beside the time that a tenth of a disk takes to fill, and
// rare beside what measuring all runs costs where it is full.
const DefaultLook = time.Minute

// filled checks c and fills in the defaults.
func (c Config) filled() (Config, error) {
	if c.Name == "" {
		host, err := os.Hostname()
		if err != nil {
			return c, fmt.Errorf("name the node after its host: %w", err)
		}
		c.Name = host
	}
	if c.Region == "" {
		c.Region = "global"
	}
	if c.Datacenter == "" {
		c.Datacenter = "dc1"
	}
	if err := sheaf.CheckName("node", c.Name); err != nil {
		return c, err
	}
	if c.Discovery == nil {
		return c, &sheaf.Error{Class: sheaf.Internal, Msg: "client has no way to find or reach its servers"}
	}
	if c.DataDir != "" && !filepath.IsAbs(c.DataDir) {
		return c, &sheaf.Error{Class: sheaf.Invalid, Field: "data_dir", Msg: fmt.Sprintf("data directory %q is not absolute", c.DataDir), Hint: "write it from the root, as in /var/lib/sheaf"}
	}
	for _, d := range c.Drivers {
		if err := sheaf.CheckName("driver", d.Name); err != nil {
			return c, err
		}
		if len(d.Command) == 0 {
			return c, &sheaf.Error{Class: sheaf.Invalid, Field: "driver", Msg: fmt.Sprintf("driver %q has no command", d.Name)}
		}
	}
	for _, r := range c.FileRoots {
		if !filepath.IsAbs(r.Path) {
			return c, &sheaf.Error{Class: sheaf.Invalid, Field: "file_root", Msg: fmt.Sprintf("directory %q that jobs may read is not absolute", r.Path), Hint: "write it from the root, as in /data/photos"}
		}
	}
	if c.CacheBytes == 0 {
		c.CacheBytes = DefaultCache
	}
	c.Room.Disk, c.Room.Inodes = cmp.Or(c.Room.Disk, DefaultRoom.Disk), cmp.Or(c.Room.Inodes, DefaultRoom.Inodes)
	c.LookEvery = cmp.Or(c.LookEvery, DefaultLook)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c, nil
}
