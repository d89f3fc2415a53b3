package match

import (
	"fmt"
	"net/url"
	"path"
	"strings"

	"github.com/sheaf-run/agent/sheaf"
)

// Input is what an input of a job, or a file that its task's driver needs, asks of a node.
type Input struct {
	What, Scheme, Host, Path string
}

// Inputs are those of a job, in order. What a reduce reads has no source: any client gets it from the others.
func Inputs(j *sheaf.Job) []Input {
	var in []Input
	for _, i := range j.Inputs {
		if i.Source == "" {
			continue
		}
		in = append(in, readOf(fmt.Sprintf("input %q", i.Name), i.Source))
	}
	return in
}

// readOf is what reading at a URL asks for. A CAR file is read by who may read the file.
func readOf(what, rawURL string) Input {
	x := inputOf(what, rawURL)
	if x.Scheme == "car" {
		x.Scheme = "file"
	}
	return x
}

func inputOf(what, rawURL string) Input {
	x := Input{What: what}
	if u, err := url.Parse(rawURL); err == nil {
		x.Scheme, x.Host, x.Path = u.Scheme, u.Host, path.Clean("/"+u.Path)
		if x.Scheme == "https" { // whose hosts have ports, and are the same in capitals
			x.Host = strings.ToLower(strings.TrimSuffix(u.Hostname(), "."))
		}
	}
	return x
}

// LacksPlace says what a node would need in order to publish below a URL; an empty code is nothing.
func LacksPlace(n *sheaf.Node, to string) (Code, string) {
	if _, ok := PlaceOf(n, to); ok {
		return "", ""
	}
	return NoPlace, fmt.Sprintf("may not write to %s: nothing that its configuration makes writable holds it", to)
}

// PlaceOf is what of a node holds a URL and may be written.
func PlaceOf(n *sheaf.Node, to string) (best sheaf.NodeSource, ok bool) {
	return inputOf("result", to).find(n, func(s sheaf.NodeSource) bool { return s.Writable })
}

// SourceOf is the node's source that the input is read from. Of several
// directories that hold a file, a shared one serves best.
func (x Input) SourceOf(n *sheaf.Node) (best sheaf.NodeSource, ok bool) {
	return x.find(n, func(sheaf.NodeSource) bool { return true })
}

func (x Input) find(n *sheaf.Node, does func(sheaf.NodeSource) bool) (best sheaf.NodeSource, ok bool) {
	for _, s := range n.Sources {
		if s.Scheme != x.Scheme || !does(s) || !x.liesIn(s) {
			continue
		}
		if !ok || s.Shared {
			best, ok = s, true
		}
	}
	return best, ok
}

// liesIn reports whether a source of its scheme holds the input: below a directory, or in a bucket or on a host of a pattern.
func (x Input) liesIn(s sheaf.NodeSource) bool {
	switch s.Scheme {
	case "file", "car":
		return within(x.Path, s.Root)
	case "s3":
		ok, err := path.Match(s.Root, x.Host)
		return ok && err == nil
	case "https":
		ok, err := path.Match(strings.ToLower(s.Root), x.Host)
		return ok && err == nil
	}
	return true
}

func within(p, root string) bool {
	root = path.Clean("/" + root)
	return root == "/" || p == root || strings.HasPrefix(p, root+"/")
}
