// Package api is the Go client of the HTTP API, and the shapes of its requests
// and replies beyond the domain's own. A Client is safe for concurrent use; each
// call is bounded by its context alone. Errors that the API answered are *sheaf.Error.
package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/sheaf-run/agent/sheaf"
)

// DefaultAddress is where an agent serves HTTP unless told otherwise.
const DefaultAddress = "http://127.0.0.1:7610"

// Names of the headers.
const (
	HeaderIndex       = "X-Sheaf-Index"
	HeaderKnownLeader = "X-Sheaf-KnownLeader"
	HeaderLastContact = "X-Sheaf-LastContact" // milliseconds
	HeaderNextToken   = "X-Sheaf-NextToken"
	HeaderToken       = "X-Sheaf-Token"
)

// maxErrorBody bounds what is read of an error's body; ours are a few hundred bytes.
const maxErrorBody = 64 << 10

// Config says which agent to talk to, and as whom.
type Config struct {
	Address   string // URL, or host:port
	Token     string
	Namespace string
	Region    string
	Stale     bool // every read may be answered by the agent asked, where it is a server, from what it has

	// For HTTPS; paths of PEM files.
	CACert        string // of the cluster's authority; the system's unless given
	ClientCert    string // where the agent asks for certificates
	ClientKey     string
	TLSServerName string // whom to expect, instead of the address's host
}

// FromEnvironment reads SHEAF_ADDR, SHEAF_TOKEN, SHEAF_NAMESPACE, SHEAF_REGION, SHEAF_CACERT,
// SHEAF_CLIENT_CERT, SHEAF_CLIENT_KEY and SHEAF_TLS_SERVER_NAME.
func FromEnvironment() Config {
	return Config{
		Address: os.Getenv("SHEAF_ADDR"), Token: os.Getenv("SHEAF_TOKEN"),
		Namespace: os.Getenv("SHEAF_NAMESPACE"), Region: os.Getenv("SHEAF_REGION"),
		CACert: os.Getenv("SHEAF_CACERT"), ClientCert: os.Getenv("SHEAF_CLIENT_CERT"), ClientKey: os.Getenv("SHEAF_CLIENT_KEY"),
		TLSServerName: os.Getenv("SHEAF_TLS_SERVER_NAME"),
	}
}

// Client talks to one agent.
type Client struct {
	base *url.URL
	conf Config
	http *http.Client
}

// New makes a client. A malformed address is an Invalid error; nothing is dialled yet.
func New(conf Config) (*Client, error) {
	addr := conf.Address
	if addr == "" {
		addr = strings.TrimPrefix(DefaultAddress, "http://")
	}
	if !strings.Contains(addr, "://") {
		addr = conf.scheme() + addr
	}
	u, err := url.Parse(addr)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, &sheaf.Error{Class: sheaf.Invalid, Field: "SHEAF_ADDR", Msg: fmt.Sprintf("%q is no address of an agent", conf.Address), Hint: "write it as in http://127.0.0.1:7610"}
	}
	secured, err := conf.secured()
	if err != nil {
		return nil, err
	}
	dialer := &net.Dialer{Timeout: 5 * time.Second}
	return &Client{base: u, conf: conf, http: &http.Client{Transport: &http.Transport{
		DialContext: dialer.DialContext, MaxIdleConnsPerHost: 16, DisableCompression: true,
		TLSClientConfig: secured, TLSHandshakeTimeout: 10 * time.Second,
	}}}, nil
}

// Address is the agent's URL.
func (c *Client) Address() string { return c.base.String() }

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Read says how a read is done.
type Read struct {
	Index  uint64        // block until the state is past this
	Wait   time.Duration // at most so long; 0 leaves it to the agent
	Stale  bool          // any server may answer
	Params url.Values    // the endpoint's own
}

// Meta is what came in a reply's headers.
type Meta struct {
	Index       uint64
	KnownLeader bool
	LastContact time.Duration
	NextToken   string // of the next page; "" on the last
}

func (r Read) values() url.Values {
	q := url.Values{}
	for k, v := range r.Params {
		q[k] = v
	}
	if r.Index > 0 {
		q.Set("index", strconv.FormatUint(r.Index, 10))
	}
	if r.Wait > 0 {
		q.Set("wait", r.Wait.String())
	}
	if r.Stale {
		q.Set("stale", "true")
	}
	return q
}

// do sends a request and gives the reply if it is a success. The caller closes its body. A body that is an
// io.Reader goes as it is.
func (c *Client) do(ctx context.Context, method, path string, q url.Values, body any, header http.Header) (*http.Response, error) {
	var rd io.Reader
	if raw, ok := body.(io.Reader); ok {
		rd = raw
	} else if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("encode request: %w", err)
		}
		rd = bytes.NewReader(b)
	}
	u := *c.base
	u.Path = strings.TrimSuffix(u.Path, "/") + path
	if c.conf.Namespace != "" && q.Get("namespace") == "" {
		if q == nil {
			q = url.Values{}
		}
		q.Set("namespace", c.conf.Namespace)
	}
	if c.conf.Stale && method == http.MethodGet && q.Get("stale") == "" {
		if q == nil {
			q = url.Values{}
		}
		q.Set("stale", "true")
	}
	u.RawQuery = q.Encode()
	req, err := http.NewRequestWithContext(ctx, method, u.String(), rd)
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	for k, v := range header {
		req.Header[k] = v
	}
	if body != nil && req.Header.Get("Content-Type") == "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.conf.Token != "" {
		req.Header.Set(HeaderToken, c.conf.Token)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.unreachable(ctx, err)
	}
	if resp.StatusCode >= 400 {
		defer resp.Body.Close()
		return nil, problem(resp)
	}
	return resp, nil
}

// problem reads the problem+json of a refused request.
func problem(resp *http.Response) error {
	b, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	e := &sheaf.Error{}
	if resp.TLS == nil && strings.TrimSpace(string(b)) == plainToTLS {
		return &sheaf.Error{Class: sheaf.Unavailable, Msg: "the agent speaks HTTPS, and was asked in plain HTTP", Hint: "write SHEAF_ADDR with https://, and name the cluster's ca.pem with SHEAF_CACERT or -ca-cert"}
	}
	if json.Unmarshal(b, e) != nil || e.Msg == "" {
		return &sheaf.Error{Class: sheaf.Internal, Msg: fmt.Sprintf("the agent answered %s: %s", resp.Status, strings.TrimSpace(string(b)))}
	}
	if e.Class == "" {
		e.Class = sheaf.Internal
	}
	return withoutLimit(e)
}

// withoutLimit drops the limit from the end of a message that says it too: the error has it in a field.
func withoutLimit(e *sheaf.Error) *sheaf.Error {
	if e.Limit != "" {
		e.Msg = strings.TrimSuffix(e.Msg, " (limit "+e.Limit+")")
	}
	return e
}

func meta(h http.Header) Meta {
	m := Meta{NextToken: h.Get(HeaderNextToken), KnownLeader: h.Get(HeaderKnownLeader) == "true"}
	m.Index, _ = strconv.ParseUint(h.Get(HeaderIndex), 10, 64)
	ms, _ := strconv.ParseInt(h.Get(HeaderLastContact), 10, 64)
	m.LastContact = time.Duration(ms) * time.Millisecond
	return m
}

func (c *Client) get(ctx context.Context, path string, r Read, out any) (Meta, error) {
	resp, err := c.do(ctx, http.MethodGet, path, r.values(), nil, nil)
	if err != nil {
		return Meta{}, err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		return Meta{}, fmt.Errorf("read reply of %s: %w", path, err)
	}
	return meta(resp.Header), nil
}

func (c *Client) send(ctx context.Context, method, path string, q url.Values, body, out any) error {
	resp, err := c.do(ctx, method, path, q, body, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if out == nil {
		_, err = io.Copy(io.Discard, resp.Body)
		return err
	}
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		return fmt.Errorf("read reply of %s: %w", path, err)
	}
	return nil
}

// stream reads an NDJSON reply and calls each with every line.
func (c *Client) stream(ctx context.Context, method, path string, q url.Values, body any, each func(json.RawMessage) error) error {
	resp, err := c.do(ctx, method, path, q, body, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	for dec := json.NewDecoder(resp.Body); ; {
		var line json.RawMessage
		if err := dec.Decode(&line); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("read reply of %s: %w", path, err)
		}
		if e := streamError(line); e != nil {
			return e
		}
		if err := each(line); err != nil {
			return err
		}
	}
}

// StreamError is the last line of a stream that broke after its status was sent.
type StreamError struct {
	Error *sheaf.Error `json:"error"`
}

func streamError(line json.RawMessage) error {
	if !bytes.HasPrefix(line, []byte(`{"error":{`)) {
		return nil
	}
	var e StreamError
	if json.Unmarshal(line, &e) != nil || e.Error == nil {
		return nil
	}
	return withoutLimit(e.Error)
}
