package https

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"path"
	"strings"
	"time"

	"github.com/sheaf-run/agent/sheaf"
)

const (
	// maxRedirects is what a download takes at most: to a mirror, from there to its storage.
	maxRedirects = 5
	// maxTries is how often a request is sent that could not be answered for the moment.
	maxTries = 6
	// firstPause stands between the first two tries; it doubles up to maxPause.
	firstPause = 100 * time.Millisecond
	maxPause   = 5 * time.Second
	// headTimeout is for an answer to begin, and stallTimeout for more of it to come.
	headTimeout  = 30 * time.Second
	stallTimeout = 60 * time.Second
	// maxHeader bounds what an answer says of itself, in bytes.
	maxHeader = 64 << 10
	// hostConnections is how many connections one host gets from this node.
	hostConnections = 32
)

// web sends requests to the hosts that may be asked.
type web struct {
	hosts   []*host
	resolve resolve
}

// host is a block of the configuration with its connections.
type host struct {
	Host
	transport *http.Transport
}

func newWeb(hosts []Host) (*web, error) {
	w := &web{resolve: net.DefaultResolver.LookupNetIP}
	for _, h := range hosts {
		if _, err := path.Match(h.Pattern, "x"); err != nil || h.Pattern == "" {
			return nil, &sheaf.Error{Class: sheaf.Invalid, Field: fmt.Sprintf("client.https %q", h.Pattern), Msg: "the pattern of hosts is malformed", Hint: `write a name, "*.example.org", or "*" for any`}
		}
		conf := &tls.Config{MinVersion: tls.VersionTLS12}
		if h.CAs != nil {
			conf.RootCAs = x509.NewCertPool()
			if !conf.RootCAs.AppendCertsFromPEM(h.CAs) {
				return nil, &sheaf.Error{Class: sheaf.Invalid, Field: fmt.Sprintf("client.https %q.ca_file", h.Pattern), Msg: "it holds no certificate", Hint: "give a file in PEM"}
			}
		}
		d := dialer{private: h.Private, resolve: func(ctx context.Context, network, host string) ([]netip.Addr, error) {
			return w.resolve(ctx, network, host)
		}}
		w.hosts = append(w.hosts, &host{h, &http.Transport{
			DialContext: d.dial, TLSClientConfig: conf, TLSHandshakeTimeout: dialTimeout, ForceAttemptHTTP2: true, DisableCompression: true,
			ResponseHeaderTimeout: headTimeout, IdleConnTimeout: 30 * time.Second, MaxConnsPerHost: hostConnections, MaxIdleConnsPerHost: hostConnections,
			MaxResponseHeaderBytes: maxHeader,
		}})
	}
	return w, nil
}

// hostOf is the block for a URL, or why there is none.
func (w *web) hostOf(u *url.URL) (*host, error) {
	if u.Scheme != "https" {
		return nil, &sheaf.Error{Class: sheaf.Denied, Field: "source", Msg: plain(u) + " is not https", Hint: "name where it leads to with https"}
	}
	name := strings.ToLower(strings.TrimSuffix(u.Hostname(), "."))
	if err := checkHost(name); err != nil {
		return nil, err
	}
	for _, h := range w.hosts {
		if ok, err := path.Match(strings.ToLower(h.Pattern), name); ok && err == nil {
			return h, nil
		}
	}
	return nil, &sheaf.Error{
		Class: sheaf.Denied, Field: "source", Msg: fmt.Sprintf("the configuration of this client does not let jobs read from host %q", name),
		Hint: fmt.Sprintf("add https %q { } to its client block", name),
	}
}

// again reports whether a status may be another one later.
func again(status int) bool {
	return status == http.StatusTooManyRequests || status == http.StatusRequestTimeout || status >= 500 && status != http.StatusNotImplemented
}

// get asks for a resource until there is an answer that counts: 200, 206, 412 or 416. The body is the caller's to close.
func (w *web) get(ctx context.Context, u *url.URL, header http.Header) (*http.Response, error) {
	for try, pause := 1, firstPause; ; try, pause = try+1, min(2*pause, maxPause) {
		resp, err := w.once(ctx, u, header)
		switch {
		case err == nil && !again(resp.StatusCode):
			switch resp.StatusCode {
			case http.StatusOK, http.StatusPartialContent, http.StatusPreconditionFailed, http.StatusRequestedRangeNotSatisfiable:
				return resp, nil
			}
			_ = resp.Body.Close()
			return nil, statusError(resp.Request.URL, resp)
		case err == nil:
			_ = resp.Body.Close()
			err = statusError(resp.Request.URL, resp)
		}
		if try == maxTries || ctx.Err() != nil || !passing(err) {
			return nil, classed(u, err)
		}
		// Those that were turned away together do not come back together.
		select {
		case <-time.After(pause/2 + rand.N(pause)):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// passing reports whether an error may pass by itself.
func passing(err error) bool {
	var own *sheaf.Error
	if errors.As(err, &own) {
		return own.Class == sheaf.Unavailable
	}
	var cert *tls.CertificateVerificationError
	return !errors.As(err, &cert)
}

// classed gives an error its class and the place.
func classed(u *url.URL, err error) error {
	var own *sheaf.Error
	if errors.As(err, &own) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("read %s: %w", plain(u), err)
	}
	var named *url.Error // its text has the query, which may be secret
	if errors.As(err, &named) {
		err = named.Err
	}
	return &sheaf.Error{Class: sheaf.Unavailable, Field: "source", Msg: "read " + plain(u), Err: err, Hint: "check the host's name, and that it can be reached from the client"}
}

// once sends one request and follows where it is sent on.
func (w *web) once(ctx context.Context, u *url.URL, header http.Header) (*http.Response, error) {
	for hop := 0; ; hop++ {
		h, err := w.hostOf(u)
		if err != nil {
			return nil, err
		}
		ctx, cancel := context.WithCancelCause(ctx)
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
		if err != nil {
			cancel(nil)
			return nil, err
		}
		for name, values := range header {
			req.Header[name] = values
		}
		for name, value := range h.Headers {
			req.Header.Set(name, value)
		}
		req.Header.Set("Accept-Encoding", "identity")
		req.Header.Set("User-Agent", "sheaf")
		resp, err := h.transport.RoundTrip(req)
		if err != nil {
			cancel(nil)
			return nil, err
		}
		resp.Body = &watched{ReadCloser: resp.Body, ctx: ctx, cancel: cancel}
		if resp.StatusCode < 300 || resp.StatusCode > 399 || resp.StatusCode == http.StatusNotModified {
			return resp, nil
		}
		_ = resp.Body.Close()
		next, err := resp.Location()
		switch {
		case err != nil:
			return nil, statusError(u, resp)
		case hop == maxRedirects:
			return nil, &sheaf.Error{Class: sheaf.Invalid, Field: "source", Msg: plain(u) + " leads on and on", Limit: fmt.Sprintf("%d redirects", maxRedirects), Hint: "name where it ends"}
		}
		next.User = nil
		u = next
	}
}

// watched is a body that breaks when nothing comes any more.
type watched struct {
	io.ReadCloser
	ctx    context.Context
	cancel context.CancelCauseFunc
}

var errStalled = fmt.Errorf("nothing came for %v", stallTimeout)

func (b *watched) Read(p []byte) (int, error) {
	t := time.AfterFunc(stallTimeout, func() { b.cancel(errStalled) })
	defer t.Stop()
	n, err := b.ReadCloser.Read(p)
	if err != nil && errors.Is(context.Cause(b.ctx), errStalled) {
		err = errStalled
	}
	return n, err
}

func (b *watched) Close() error {
	err := b.ReadCloser.Close()
	b.cancel(nil)
	return err
}
