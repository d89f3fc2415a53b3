package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/sheaf-run/agent/sheaf"
)

// ProvenanceLine is a line of the reply: first the file or directory that was asked for, then
// what it is made of, in the order in which its bytes stand, of a directory by partition.
type ProvenanceLine struct {
	File *ProvenanceFile `json:"file,omitempty"`
	Part *ProvenancePart `json:"part,omitempty"`
}

// ProvenanceFile is a file of a result, or a directory, and what made it.
type ProvenanceFile struct {
	Run        sheaf.RunID  `json:"run"`
	Job        string       `json:"job"`
	Output     string       `json:"output"`          // empty of what tasks printed, whose size is not told
	Merge      string       `json:"merge"`           // how the output was merged
	Path       string       `json:"path"`            // relative to the output
	Files      int          `json:"files,omitempty"` // of a directory: those below it
	Size       int64        `json:"size"`
	SHA256     string       `json:"sha256,omitempty"` // of a file of one part; else each part has its own
	Link       string       `json:"link,omitempty"`
	Parts      int          `json:"parts"`          // how many there are; fewer may follow
	Partitions sheaf.Ranges `json:"partitions"`     // which partitions made them
	More       bool         `json:"more,omitempty"` // the ranges go on: they were too many
	// What ran: the same for all parts.
	Task   string         `json:"task"`
	Driver string         `json:"driver"`
	Config map[string]any `json:"config,omitempty"`
	Image  string         `json:"image_digest,omitempty"` // of the image or module, as it ran
}

// ProvenancePart is what one partition has made of a file, or of the files below a directory.
type ProvenancePart struct {
	Partition int           `json:"partition"`
	Attempt   uint32        `json:"attempt"`
	Node      sheaf.NodeID  `json:"node"` // where its output lay when it was merged
	NodeName  string        `json:"node_name,omitempty"`
	MadeBy    *sheaf.MadeBy `json:"made_by,omitempty"` // the earlier run that made it, where it was taken over; the attempt is that run's
	Started   *time.Time    `json:"started,omitempty"`
	Ended     *time.Time    `json:"ended,omitempty"`
	Offset    int64         `json:"offset,omitempty"` // of a file: where it begins
	Files     int           `json:"files,omitempty"`  // of a directory: how many of them it made, in whole or in part
	Path      string        `json:"path,omitempty"`   // in the partition's own output, where it differs
	Size      int64         `json:"size"`
	SHA256    string        `json:"sha256,omitempty"`
	Key       string        `json:"key,omitempty"` // of its group
	Atoms     []Atom        `json:"atoms,omitempty"`
	AtomsAll  int           `json:"atoms_total,omitempty"` // how many it read; fewer may be named
}

// Atom is a file or directory that a partition has read.
type Atom struct {
	Path     string `json:"path"`
	Input    string `json:"input,omitempty"`
	Size     int64  `json:"size"`
	Dir      bool   `json:"dir,omitempty"`
	Identity string `json:"identity,omitempty"` // what its source promised of the content
}

// ProvenanceOptions say how much is wanted; 0 is what the agent thinks enough.
type ProvenanceOptions struct {
	Parts int // at most so many
	Atoms int // of each part at most so many
}

// Provenance says where a file of a run's result comes from. The path begins with the name of the output; of a directory,
// the partitions that wrote below it are named. It calls part for each.
func (c *Client) Provenance(ctx context.Context, run, path string, o ProvenanceOptions, part func(ProvenancePart) error) (ProvenanceFile, error) {
	q := url.Values{"path": {path}}
	if o.Parts > 0 {
		q.Set("parts", strconv.Itoa(o.Parts))
	}
	if o.Atoms > 0 {
		q.Set("atoms", strconv.Itoa(o.Atoms))
	}
	var file *ProvenanceFile
	err := c.stream(ctx, http.MethodGet, runPath(run, "provenance"), q, nil, func(raw json.RawMessage) error {
		var line ProvenanceLine
		if err := json.Unmarshal(raw, &line); err != nil {
			return fmt.Errorf("read provenance: %w", err)
		}
		if line.File != nil {
			file = line.File
		}
		if line.Part != nil {
			return part(*line.Part)
		}
		return nil
	})
	if err == nil && file == nil {
		err = &sheaf.Error{Class: sheaf.Unavailable, Msg: "the reply broke off before it began"}
	}
	if err != nil {
		return ProvenanceFile{}, err
	}
	return *file, nil
}
