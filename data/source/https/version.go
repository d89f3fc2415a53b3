package https

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/sheaf-run/agent/data/source"
	"github.com/sheaf-run/agent/sheaf"
)

// version is what a server says of the content that it has now.
type version struct {
	tag  string // "etag:TAG:SIZE" or "modified:TIME:SIZE"; "" where it says neither
	etag string // that a request can be bound to; "" where there is none
	size int64  // bytes
}

// versionOf reads it from an answer, of which size is -1 where the answer does not say.
func versionOf(resp *http.Response) version {
	v := version{size: -1}
	switch resp.StatusCode {
	case http.StatusOK:
		v.size = resp.ContentLength
	case http.StatusPartialContent:
		_, total, ok := strings.Cut(resp.Header.Get("Content-Range"), "/")
		if n, err := strconv.ParseInt(total, 10, 64); ok && err == nil && n >= 0 {
			v.size = n
		}
	}
	etag := resp.Header.Get("ETag")
	switch {
	case etag != "":
		v.tag = fmt.Sprintf("etag:%s:%d", strings.Trim(strings.TrimPrefix(etag, "W/"), `"`), v.size)
		if !strings.HasPrefix(etag, "W/") {
			v.etag = etag
		}
	default:
		if t, err := http.ParseTime(resp.Header.Get("Last-Modified")); err == nil {
			v.tag = fmt.Sprintf("modified:%s:%d", t.UTC().Format(time.RFC3339), v.size)
		}
	}
	return v
}

// look asks for the first byte, and so learns the version: some servers answer no HEAD.
func (w *web) look(ctx context.Context, u *url.URL) (version, error) {
	resp, err := w.get(ctx, u, http.Header{"Range": {"bytes=0-0"}})
	if err != nil {
		return version{}, err
	}
	_ = resp.Body.Close()
	if resp.StatusCode == http.StatusRequestedRangeNotSatisfiable { // an empty file has no first byte
		if resp, err = w.get(ctx, u, nil); err != nil {
			return version{}, err
		}
		_ = resp.Body.Close()
	}
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusPartialContent {
		return version{}, statusError(u, resp)
	}
	return versionOf(resp), nil
}

// from opens the bytes from..to-1 of the version v.
func (w *web) from(ctx context.Context, u *url.URL, v version, from, to int64) (io.ReadCloser, error) {
	header := http.Header{"Range": {fmt.Sprintf("bytes=%d-%d", from, to-1)}}
	if v.etag != "" {
		header.Set("If-Match", v.etag)
	}
	resp, err := w.get(ctx, u, header)
	if err != nil {
		return nil, err
	}
	body := resp.Body
	now := versionOf(resp)
	switch {
	case resp.StatusCode == http.StatusPreconditionFailed || now.size != v.size || now.tag != v.tag:
		err = replaced(u, v.tag, now.tag)
	case resp.StatusCode == http.StatusPartialContent:
		var at int64
		if _, err = fmt.Sscanf(resp.Header.Get("Content-Range"), "bytes %d-", &at); err == nil && at != from {
			err = fmt.Errorf("%s answers for byte %d what was asked for byte %d", plain(u), at, from)
		}
	case resp.StatusCode == http.StatusOK: // a server without ranges: what comes before is passed over
		_, err = io.CopyN(io.Discard, body, from)
	default:
		err = statusError(u, resp)
	}
	if err != nil {
		_ = body.Close()
		return nil, err
	}
	return body, nil
}

func replaced(u *url.URL, was, is string) error {
	msg := plain(u) + " was replaced"
	if is != "" {
		msg = fmt.Sprintf("%s was %s and is %s", plain(u), was, is)
	}
	return &sheaf.Error{Class: sheaf.Conflict, Field: "source", Msg: msg, Err: source.ErrChanged, Hint: "run the job again, on files that stay as they are"}
}
