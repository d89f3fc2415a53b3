package client

import (
	"path/filepath"

	"github.com/sheaf-run/agent/client/results"
	"github.com/sheaf-run/agent/data/cache"
	"github.com/sheaf-run/agent/data/publish"
	"github.com/sheaf-run/agent/data/source"
	"github.com/sheaf-run/agent/data/source/archive"
	"github.com/sheaf-run/agent/data/source/car"
	"github.com/sheaf-run/agent/data/source/https"
	"github.com/sheaf-run/agent/data/source/ipfs"
	"github.com/sheaf-run/agent/data/source/s3"
	"github.com/sheaf-run/agent/sheaf"
)

// sources is what this node lets jobs read. What is not on this machine comes by way of the cache.
// Results of other runs are opened by what is given.
func (c *Client) sources(results *results.Reader) (source.Config, *cache.Cache, error) {
	var s source.Config
	for _, r := range c.cfg.FileRoots {
		s.Files = append(s.Files, source.Root{Path: r.Path, Shared: r.Shared})
	}
	kept, err := cache.Open(filepath.Join(c.dir, "cache"), c.cfg.CacheBytes)
	if err != nil {
		return s, nil, err
	}
	web, err := https.Opener(https.Options{Hosts: c.cfg.Web, Keep: kept, Limits: archive.Limits{Bytes: c.cfg.CacheBytes, Dir: filepath.Join(c.dir, "cache")}})
	if err != nil {
		return s, nil, err
	}
	gateways, err := ipfs.Opener(c.cfg.Gateways)
	if err != nil {
		return s, nil, err
	}
	s.Others = map[string]source.Opener{
		"s3":    cached(kept, s3.Opener(c.cfg.Buckets)),
		"https": cached(kept, web),
		"ipfs":  cached(kept, gateways),
		"car":   cached(kept, car.Opener(s.Files)),
		"job":   cached(kept, results.Open),
	}
	results.Cache = kept
	return s, kept, nil
}

// places is where this node publishes results.
func (c *Client) places() publish.Config {
	p := publish.Config{Buckets: c.cfg.Buckets}
	for _, r := range c.cfg.FileRoots {
		if r.Writable {
			p.Dirs = append(p.Dirs, r.Path)
		}
	}
	return p
}

// cached opens sources whose files come by way of a cache.
func cached(c *cache.Cache, open source.Opener) source.Opener {
	return func(rawURL string) (source.Source, error) {
		s, err := open(rawURL)
		if err != nil {
			return nil, err
		}
		return &cache.Source{Source: s, URL: rawURL, Cache: c}, nil
	}
}

// readable are the node's sources as the servers see them.
func (c Config) readable() []sheaf.NodeSource {
	var all []sheaf.NodeSource
	for _, r := range c.FileRoots {
		all = append(all, sheaf.NodeSource{Scheme: "file", Root: r.Path, Shared: r.Shared, Writable: r.Writable})
		if r.Writable {
			all = append(all, sheaf.NodeSource{Scheme: "car", Root: r.Path, Shared: r.Shared, Writable: true})
		}
	}
	for _, b := range c.Buckets {
		all = append(all, sheaf.NodeSource{Scheme: "s3", Root: b.Pattern, Shared: true, Writable: b.Writable})
	}
	for _, h := range c.Web {
		all = append(all, sheaf.NodeSource{Scheme: "https", Root: h.Pattern, Shared: true})
	}
	if len(c.Gateways) > 0 {
		all = append(all, sheaf.NodeSource{Scheme: "ipfs", Shared: true})
	}
	return append(all, sheaf.NodeSource{Scheme: "job", Shared: true})
}
