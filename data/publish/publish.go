// Package publish writes the merged result of a run to where its job says, so that
// nobody ever takes half of it for the whole.
//
// # Layout
//
// Everything of a run lies in a folder of its name below the job's URL:
//
//	<run>/manifest.json                       put last; a folder without it holds no result
//	<run>/<attempt>/files.jsonl               a line of [File] for each file of the result
//	<run>/<attempt>/outputs/<output>/<path>   the files
//	<run>/<attempt>/result.json               what is put above, as manifest.json, once the result is sealed
//
// Below a car:// URL the files are in one CAR file, as <output>/<path>:
//
//	<run>/<attempt>/result.car
//
// A merge attempt writes below its own number only ([Write]). When the servers have sealed it, what is left
// is to put the manifest, which needs nothing but the place itself ([Finish]): whoever is asked
// to does it, any number of times. What other attempts left is deleted by the next attempt, after the manifest was put, and when
// the servers forget the run ([Sweep]).
package publish

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"path"
	"strconv"
	"strings"

	"github.com/sheaf-run/agent/sheaf"
)

// The names in a run's folder.
const (
	ManifestName = "manifest.json"
	stagedName   = "result.json"
	listName     = "files.jsonl"
	outputsName  = "outputs"
	carName      = "result.car"
)

// format of manifests.
const format = 1

// Manifest is what manifest.json holds.
type Manifest struct {
	Format     int         `json:"format"`
	Run        sheaf.RunID `json:"run"`
	Job        string      `json:"job"`
	Generation uint32      `json:"generation"`
	Attempt    uint32      `json:"attempt"`        // of the merge, whose folder holds the files
	Files      int64       `json:"files"`          // how many
	Bytes      int64       `json:"bytes"`          // of all of them
	List       string      `json:"list"`           // of the files, relative to the manifest
	ListSHA256 string      `json:"list_sha256"`    // hex, of the list
	Result     string      `json:"result_sha256"`  // hex: the digest that the servers sealed
	Car        string      `json:"car,omitempty"`  // the CAR file that has the files, relative to the manifest
	Root       string      `json:"root,omitempty"` // of the CAR file: its CID
}

// File is a line of the list.
type File struct {
	Output string `json:"output"`
	Path   string `json:"path"` // within the output; where its bytes are no UTF-8, PathB64 instead
	B64    string `json:"path_b64,omitempty"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256,omitempty"` // hex
	Mode   uint32 `json:"mode"`             // permission bits
	Link   string `json:"link,omitempty"`   // of a symbolic link, what it leads to; it has no name
	Name   string `json:"name,omitempty"`   // of the object, relative to the manifest; in a CAR file it has none
	CID    string `json:"cid,omitempty"`    // in a CAR file
}

// ErrStale is returned by [Finish] when the manifest of a later generation of the run stands.
var ErrStale = errors.New("a later result of the run is published")

func attemptDir(run sheaf.RunID, attempt uint32) string {
	return path.Join(string(run), strconv.FormatUint(uint64(attempt), 10))
}

// Finish publishes what [Write] has written: it puts the manifest of the sealed attempt, unless it stands
// already, and deletes what other attempts have left. result is the digest that was sealed. It may be done
// over, and by several at once.
func Finish(ctx context.Context, p Place, run sheaf.RunID, attempt uint32, result string) error {
	mine, _, err := p.Get(ctx, path.Join(attemptDir(run, attempt), stagedName))
	if err != nil {
		return fmt.Errorf("read what merge attempt %d wrote: %w", attempt, err)
	}
	m, err := decode(mine)
	if err != nil {
		return fmt.Errorf("read what merge attempt %d wrote: %w", attempt, err)
	}
	if m.Result != result || m.Run != run || m.Attempt != attempt {
		return &sheaf.Error{Class: sheaf.Conflict, Field: "publish.to", Msg: fmt.Sprintf("what merge attempt %d wrote is of another result", attempt), Hint: "somebody else writes there: publish to a place of its own"}
	}
	name := path.Join(string(run), ManifestName)
	for {
		stands, version, err := p.Get(ctx, name)
		switch {
		case err == nil && string(stands) == string(mine):
			return sweep(ctx, p, run, attempt)
		case err == nil:
			if other, err := decode(stands); err == nil && (other.Generation > m.Generation || other.Generation == m.Generation && other.Attempt > attempt) {
				return ErrStale
			}
		case sheaf.ClassOf(err) != sheaf.NotFound:
			return fmt.Errorf("read the manifest: %w", err)
		}
		err = p.Replace(ctx, name, mine, version)
		if err == nil {
			return sweep(ctx, p, run, attempt)
		}
		if !errors.Is(err, ErrStands) {
			return fmt.Errorf("put the manifest: %w", err)
		}
	}
}

// Sweep deletes all of a run's folder that its manifest does not name: everything, where there is none. It is for
// runs that nobody merges any more.
func Sweep(ctx context.Context, p Place, run sheaf.RunID) error {
	return sweep(ctx, p, run, math.MaxUint32)
}

// sweep deletes what the manifest does not name of attempts up to a given one. A later one may be
// writing, for another generation.
func sweep(ctx context.Context, p Place, run sheaf.RunID, upTo uint32) error {
	kept, err := published(ctx, p, run)
	if err != nil {
		return err
	}
	err = p.Clear(ctx, string(run), func(name string, whole bool) bool {
		if n, ok := attemptIn(run, name); ok && n > upTo {
			return true
		}
		// The attempt that is published has written all: an upload of it is one that it was not told had begun.
		return whole && kept != "" && (name == path.Join(string(run), ManifestName) || below(name, kept))
	})
	if err != nil {
		return fmt.Errorf("delete what merges have left: %w", err)
	}
	return nil
}

// attemptIn is the attempt in whose folder an object lies.
func attemptIn(run sheaf.RunID, name string) (attempt uint32, ok bool) {
	of, _, _ := strings.Cut(strings.TrimPrefix(name, string(run)+"/"), "/")
	n, err := strconv.ParseUint(of, 10, 32)
	return uint32(n), err == nil
}

// clearEarlier deletes what lower attempts have left that were not sealed: since there is a later one they never
// will be. One that has written all may have been, for an earlier generation, and somebody be about to
// put its manifest: it goes when a later manifest stands. A later attempt is let alone, since this one may be the late one.
func clearEarlier(ctx context.Context, p Place, run sheaf.RunID, attempt uint32) error {
	kept, err := published(ctx, p, run)
	if err != nil {
		return err
	}
	whole := map[uint32]bool{}
	for n := uint32(1); n < attempt; n++ {
		switch _, _, err := p.Get(ctx, path.Join(attemptDir(run, n), stagedName)); {
		case err == nil:
			whole[n] = true
		case sheaf.ClassOf(err) != sheaf.NotFound:
			return fmt.Errorf("look what merge attempt %d has left: %w", n, err)
		}
	}
	err = p.Clear(ctx, string(run), func(name string, _ bool) bool {
		n, ok := attemptIn(run, name)
		return !ok || n >= attempt || whole[n] || kept != "" && below(name, kept)
	})
	if err != nil {
		return fmt.Errorf("delete what earlier merges have left: %w", err)
	}
	return nil
}

// Discard deletes what an attempt has written that will not be sealed.
func Discard(ctx context.Context, p Place, run sheaf.RunID, attempt uint32) error {
	kept, err := published(ctx, p, run)
	if err != nil || kept == attemptDir(run, attempt) {
		return err
	}
	if err := p.Clear(ctx, attemptDir(run, attempt), func(string, bool) bool { return false }); err != nil {
		return fmt.Errorf("delete what merge attempt %d wrote: %w", attempt, err)
	}
	return nil
}

// published is the folder of the attempt that the run's manifest names; "" is none.
func published(ctx context.Context, p Place, run sheaf.RunID) (string, error) {
	data, _, err := p.Get(ctx, path.Join(string(run), ManifestName))
	if err != nil && sheaf.ClassOf(err) == sheaf.NotFound {
		return "", nil
	}
	var m Manifest
	if err == nil {
		m, err = decode(data)
	}
	if err != nil {
		return "", fmt.Errorf("read the manifest: %w", err)
	}
	return attemptDir(run, m.Attempt), nil
}

func decode(data []byte) (Manifest, error) {
	var m Manifest
	if err := json.Unmarshal(data, &m); err != nil {
		return m, &sheaf.Error{Class: sheaf.Conflict, Field: "publish.to", Msg: "the manifest that stands there is not ours", Err: err, Hint: "publish to a place of its own"}
	}
	if m.Format != format {
		return m, &sheaf.Error{Class: sheaf.Conflict, Field: "publish.to", Msg: fmt.Sprintf("the manifest that stands there has the format %d", m.Format), Hint: "use the version that wrote it, or publish elsewhere"}
	}
	return m, nil
}

func below(name, dir string) bool {
	return len(name) > len(dir) && name[:len(dir)] == dir && name[len(dir)] == '/'
}
