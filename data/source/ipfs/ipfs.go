// Package ipfs reads files by their CID from gateways, block by block. A gateway is
// asked for raw blocks alone (the trustless gateway protocol) and each is verified by its CID, so that a
// gateway can withhold, and never change, what is read. One that fails or lies is passed over for the next.
package ipfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/sheaf-run/agent/data/source"
	"github.com/sheaf-run/agent/data/source/unixfs"
	"github.com/sheaf-run/agent/sheaf"
)

const (
	// rounds is how often all gateways are asked for a block before it is given up, with growing pauses between.
	rounds     = 5
	firstPause = 200 * time.Millisecond
	// blockTimeout is for one block from one gateway, which may have to look for it.
	blockTimeout = 60 * time.Second
	// connections is how many one gateway gets from this node.
	connections = 32
)

// Opener opens ipfs://CID and ipfs://CID/path by way of gateways: their URLs, asked in turn.
func Opener(gateways []string) (source.Opener, error) {
	g := &gateway{client: &http.Client{
		Timeout: blockTimeout,
		Transport: &http.Transport{
			Proxy: nil, DialContext: (&net.Dialer{Timeout: 10 * time.Second}).DialContext, TLSHandshakeTimeout: 10 * time.Second, ForceAttemptHTTP2: true,
			DisableCompression: true, IdleConnTimeout: 30 * time.Second, MaxConnsPerHost: connections, MaxIdleConnsPerHost: connections,
		},
		// Where a gateway leads on to was named by nobody.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	for _, text := range gateways {
		u, err := url.Parse(text)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
			return nil, &sheaf.Error{Class: sheaf.Invalid, Field: "client.ipfs.gateways", Msg: fmt.Sprintf("gateway %q is no URL of one", text), Hint: "write https://HOST or http://127.0.0.1:8080"}
		}
		u.Path = strings.TrimSuffix(u.Path, "/")
		g.urls = append(g.urls, u)
	}
	return func(rawURL string) (source.Source, error) {
		root, below, err := parse(rawURL)
		if err != nil {
			return nil, err
		}
		if len(g.urls) == 0 {
			return nil, &sheaf.Error{Class: sheaf.Denied, Field: "source", Msg: "the configuration of this client names no gateway to IPFS", Hint: `add ipfs { gateways = ["http://127.0.0.1:8080"] } to its client block`}
		}
		return unixfs.New(g, root, below)
	}, nil
}

// parse takes a URL apart. A CID has capitals, so that it is no host.
func parse(rawURL string) (root cid.Cid, below string, err error) {
	rest, ok := strings.CutPrefix(rawURL, "ipfs://")
	text, escaped, _ := strings.Cut(rest, "/")
	if !ok || strings.ContainsAny(rest, "?#") {
		return cid.Undef, "", &sheaf.Error{Class: sheaf.Invalid, Field: "source", Msg: fmt.Sprintf("source %q is no ipfs URL", rawURL), Hint: "write ipfs://CID or ipfs://CID/path, with ? as %3F and # as %23"}
	}
	if root, err = unixfs.Parse(text); err != nil {
		return cid.Undef, "", err
	}
	if below, err = url.PathUnescape(strings.TrimSuffix(escaped, "/")); err != nil {
		return cid.Undef, "", &sheaf.Error{Class: sheaf.Invalid, Field: "source", Msg: fmt.Sprintf("source %q has a malformed %%-escape", rawURL), Hint: "write a literal % as %25"}
	}
	return root, below, nil
}

// gateway is all gateways.
type gateway struct {
	client *http.Client
	urls   []*url.URL
	good   atomic.Uint32 // the one that answered last
}

// Get asks the gateways in turn for a block, beginning with the one that answered last.
func (g *gateway) Get(ctx context.Context, c cid.Cid) ([]byte, error) {
	for round, pause := 1, firstPause; ; round, pause = round+1, 2*pause {
		begin := int(g.good.Load())
		var errs []error
		missing := 0
		for i := range g.urls {
			at := (begin + i) % len(g.urls)
			block, err := g.ask(ctx, g.urls[at], c)
			if err == nil {
				g.good.Store(uint32(at))
				return block, nil
			}
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			if sheaf.ClassOf(err) == sheaf.NotFound {
				missing++
			}
			errs = append(errs, fmt.Errorf("gateway %s: %w", g.urls[at].Host, err))
		}
		if missing == len(g.urls) {
			return nil, &sheaf.Error{Class: sheaf.NotFound, Field: "source", Msg: fmt.Sprintf("no gateway has block %s", c), Hint: "check the CID, and that somebody provides it"}
		}
		if round == rounds {
			return nil, &sheaf.Error{Class: sheaf.Unavailable, Field: "source", Msg: fmt.Sprintf("get block %s", c), Err: errors.Join(errs...), Hint: "check the gateways in the client's configuration"}
		}
		select {
		case <-time.After(pause/2 + rand.N(pause)):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// ask asks one gateway for a block and verifies it.
func (g *gateway) ask(ctx context.Context, u *url.URL, c cid.Cid) ([]byte, error) {
	ask := *u
	ask.Path += "/ipfs/" + c.String()
	ask.RawQuery = "format=raw"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, ask.String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/vnd.ipld.raw")
	req.Header.Set("User-Agent", "sheaf")
	resp, err := g.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	switch s := resp.StatusCode; {
	case s == http.StatusNotFound || s == http.StatusGone:
		return nil, &sheaf.Error{Class: sheaf.NotFound, Msg: "it has no such block"}
	case s != http.StatusOK:
		return nil, fmt.Errorf("it answers %q", resp.Status)
	}
	block, err := io.ReadAll(io.LimitReader(resp.Body, unixfs.MaxBlock+1))
	if err != nil {
		return nil, err
	}
	if len(block) > unixfs.MaxBlock {
		return nil, fmt.Errorf("its block has more than %d bytes", unixfs.MaxBlock)
	}
	return block, unixfs.Verify(c, block)
}
