package agent

import (
	"fmt"
	"time"

	"github.com/sheaf-run/agent/client"
	"github.com/sheaf-run/agent/sheaf"
)

// GCConfig says how full a client's disk may be before what can be spared on it goes.
type GCConfig struct {
	DiskUsage  int    `hcl:"disk_usage,optional"`  // 90: percent of the bytes; 100 is no limit
	InodeUsage int    `hcl:"inode_usage,optional"` // 90: percent of the inodes; 100 is no limit
	Interval   string `hcl:"interval,optional"`    // 1m: between two looks
}

// gc sets what the configuration says of the disk.
func (c *ClientConfig) gc(to *client.Config) error {
	if c.GC == nil {
		return nil
	}
	for name, p := range map[string]struct {
		percent int
		to      *int
	}{"disk_usage": {c.GC.DiskUsage, &to.Room.Disk}, "inode_usage": {c.GC.InodeUsage, &to.Room.Inodes}} {
		if p.percent < 0 || p.percent > 100 {
			return &sheaf.Error{Class: sheaf.Invalid, Field: "client.gc." + name, Msg: fmt.Sprintf("%s is %d", name, p.percent), Limit: "1 to 100", Hint: "write a percentage; 100 is no limit"}
		}
		*p.to = p.percent
	}
	return durations("client.gc", 100*time.Millisecond, map[string]duration{"interval": {c.GC.Interval, &to.LookEvery}})
}
