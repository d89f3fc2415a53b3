// Package https reads inputs from web servers: a file, the members of an archive, or the
// files of a list of URLs.
//
// Which hosts are asked, and whether they may lie at private addresses, is said by the agent's
// configuration. A name is resolved once and the address that was looked at is the one
// that is dialed; every redirect is a new question to both. No proxy of the environment is
// used, no cookie kept, and what identifies us to one host is never sent to another.
//
// Files are known by their ETag and size, else by the time of their last change and size; every
// answer is held against that, so that a file that was replaced is noticed and never mixed. A transfer that
// breaks goes on where it broke.
package https

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"strings"

	"github.com/sheaf-run/agent/data/source"
	"github.com/sheaf-run/agent/data/source/archive"
	"github.com/sheaf-run/agent/sheaf"
)

// Host says how the hosts of a pattern are reached.
type Host struct {
	Pattern string            // of names without port, as path.Match has it; "*" is every host
	Private bool              // it may lie at loopback and private addresses
	CAs     []byte            // PEM, who may vouch for it instead of the system's authorities
	Headers map[string]string // sent with each request, to these hosts alone
}

// Keeper keeps what is made of downloads; data/cache's Cache is one.
type Keeper interface {
	// Make gives the path of a file that is made once, from what name says in full. It stays until
	// release is called.
	Make(ctx context.Context, name string, make func(ctx context.Context, w io.Writer) error) (path string, release func(), err error)
}

// Options are what the sources of a node share.
type Options struct {
	Hosts  []Host // the first whose pattern matches counts
	Keep   Keeper
	Limits archive.Limits
}

// Opener opens https:// URLs. What a fragment says is no part of what is asked for:
//
//	#unpack        the members of an archive
//	#list          the files of a list: a URL a line, and behind it where it stands
//	#name=FILE     the file's name, instead of the URL's last
//	#sha256=HEX    its digest, which is its identity then
//
// several are joined by "&". A host without a pattern is Denied.
func Opener(o Options) (source.Opener, error) {
	w, err := newWeb(o.Hosts)
	if err != nil {
		return nil, err
	}
	return func(rawURL string) (source.Source, error) {
		r, err := parse(rawURL)
		if err != nil {
			return nil, err
		}
		if _, err := w.hostOf(r.url); err != nil {
			return nil, err
		}
		s := &site{web: w, keep: o.Keep, limits: o.Limits, asked: r}
		switch {
		case r.list:
			return &listSource{site: s}, nil
		case r.unpack:
			return &archiveSource{site: s}, nil
		}
		return &fileSource{site: s}, nil
	}, nil
}

// resource is what a URL asks for.
type resource struct {
	url          *url.URL // without fragment
	name         string
	digest       string // "sha256:…", where it is said
	list, unpack bool
}

func invalid(rawURL, msg, hint string) error {
	return &sheaf.Error{Class: sheaf.Invalid, Field: "source", Msg: fmt.Sprintf("source %q %s", rawURL, msg), Hint: hint}
}

// parse takes a URL and its fragment apart.
func parse(rawURL string) (resource, error) {
	u, err := url.Parse(rawURL)
	switch {
	case err != nil:
		return resource{}, invalid(rawURL, "is no URL", "write a literal % as %25")
	case u.Scheme != "https" || u.Opaque != "":
		return resource{}, invalid(rawURL, "is no https URL", "write https://host/path")
	case u.Hostname() == "":
		return resource{}, invalid(rawURL, "names no host", "write https://host/path")
	case u.User != nil:
		return resource{}, invalid("https://…@"+u.Host, "holds a user or password", "credentials belong in the clients' configuration")
	}
	if err := checkHost(u.Hostname()); err != nil {
		return resource{}, err
	}
	r := resource{name: path.Base(u.Path)}
	said, err := url.ParseQuery(u.EscapedFragment())
	if err != nil {
		return resource{}, invalid(rawURL, "has a fragment that cannot be read", "behind # stand unpack, list, name=… and sha256=…, joined by &")
	}
	for key, values := range said {
		v := values[0]
		switch {
		case len(values) > 1:
			return resource{}, invalid(rawURL, "says "+key+" twice", "say it once")
		case key == "list" && v == "":
			r.list = true
		case key == "unpack" && v == "":
			r.unpack = true
		case key == "name" && v != "":
			r.name = v
		case key == "sha256":
			if !isDigest(v) {
				return resource{}, invalid(rawURL, "has a malformed digest", "sha256sum prints it, 64 hexadecimal digits")
			}
			r.digest = "sha256:" + strings.ToLower(v)
		default:
			return resource{}, invalid(rawURL, fmt.Sprintf("says %q behind #, which is unknown", key), "behind # stand unpack, list, name=… and sha256=…, joined by &")
		}
	}
	if r.list && r.unpack {
		return resource{}, invalid(rawURL, "is to be a list and an archive", "say one of the two")
	}
	if !r.list && !r.unpack && (strings.Contains(r.name, "/") || source.CheckPath(r.name) != nil) {
		return resource{}, invalid(rawURL, "names no file", "say what it is to be called: …#name=data.csv")
	}
	u.Fragment, u.RawFragment = "", ""
	r.url = u
	return r, nil
}

func isDigest(s string) bool {
	return len(s) == 64 && strings.Trim(strings.ToLower(s), "0123456789abcdef") == ""
}

// site is what sources of each shape have in common.
type site struct {
	web    *web
	keep   Keeper
	limits archive.Limits
	asked  resource
}

// Local says that nothing of it is on this machine.
func (*site) Local(string) (string, bool) { return "", false }

// Shared says that every node with the same configuration sees the same.
func (*site) Shared() bool { return true }

// Close has nothing to give up: connections are the process's.
func (*site) Close() error { return nil }

// plain is a URL without what may be secret in it.
func plain(u *url.URL) string {
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path, RawPath: u.RawPath}).String()
}

// statusError is what an answer that is none of the expected means.
func statusError(u *url.URL, resp *http.Response) error {
	e := &sheaf.Error{Class: sheaf.Invalid, Field: "source", Msg: fmt.Sprintf("%s answers %q", plain(u), resp.Status), Hint: "check the URL"}
	switch s := resp.StatusCode; {
	case s == http.StatusNotFound || s == http.StatusGone:
		e.Class = sheaf.NotFound
	case s == http.StatusUnauthorized || s == http.StatusForbidden:
		e.Class, e.Hint = sheaf.Denied, "add what the host asks for to its https block in the client's configuration"
	case again(s):
		e.Class, e.Hint = sheaf.Unavailable, "try again later"
	}
	return e
}
