// Package s3 reads inputs from S3 and what speaks its protocol. A source is a
// bucket, a prefix in it that ends at a slash, or one object.
//
// Credentials come from the agent's configuration alone; nothing is ever asked of a
// metadata address. Objects are known by their ETag and size, and every read says
// which ETag it wants, so that an object that was replaced is noticed and never mixed. Where its
// bucket keeps versions, what was listed is read on all the same.
package s3

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"strings"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/sheaf-run/agent/data/source"
	"github.com/sheaf-run/agent/sheaf"
)

// Bucket says how the buckets of a pattern are reached.
type Bucket struct {
	Pattern   string // of names, as path.Match has it; "*" is every bucket
	Endpoint  string // URL of the service; https://s3.amazonaws.com unless given
	Region    string // asked of the service unless given
	PathStyle bool   // the bucket stands in the path, not in the host's name
	Anonymous bool   // requests are not signed
	AccessKey string
	SecretKey string
	Token     string            // of temporary credentials
	Transport http.RoundTripper // nil is the library's own
	Writable  bool              // results of runs may be published there
}

const defaultEndpoint = "https://s3.amazonaws.com"

// maxRetries is how often a request is tried that a service could not answer for
// the moment, with growing pauses between.
const maxRetries = 10

// Opener opens s3:// URLs. The first bucket whose pattern matches counts; a bucket without one is
// Denied, since reading it would take somebody's word for who may.
func Opener(buckets []Bucket) source.Opener {
	return func(rawURL string) (source.Source, error) {
		bucket, key, version, err := parse(rawURL)
		if err != nil {
			return nil, err
		}
		for _, b := range buckets {
			if ok, err := path.Match(b.Pattern, bucket); err == nil && ok {
				return open(b, bucket, key, version)
			}
		}
		return nil, &sheaf.Error{
			Class: sheaf.Denied, Field: "source", Msg: fmt.Sprintf("the configuration of this client names no way to bucket %q", bucket),
			Hint: fmt.Sprintf("add s3 %q { … } to its client block, with credentials or anonymous = true", bucket),
		}
	}
}

// parse takes a URL apart.
func parse(rawURL string) (bucket, key, version string, err error) {
	invalid := func(msg, hint string) error {
		return &sheaf.Error{Class: sheaf.Invalid, Field: "source", Msg: fmt.Sprintf("source %q %s", rawURL, msg), Hint: hint}
	}
	rest, ok := strings.CutPrefix(rawURL, "s3://")
	if !ok {
		return "", "", "", invalid("is no s3 URL", "write s3://bucket/prefix/")
	}
	bucket, key, _ = strings.Cut(rest, "/")
	if bucket == "" || strings.ContainsAny(bucket, ":@?#%") {
		return "", "", "", invalid("names no bucket", "write s3://bucket/prefix/; endpoint and credentials belong to the client's configuration")
	}
	key, version, ok = cutVersion(key)
	if !ok {
		return "", "", "", invalid("names no version of an object", "write s3://bucket/key?versionId=ID, and a literal ? as %3F")
	}
	key, err = url.PathUnescape(key)
	if err != nil {
		return "", "", "", invalid("has a malformed %-escape", "write a literal % as %25")
	}
	if key != "" && checkKey(strings.TrimSuffix(key, "/")) != nil {
		return "", "", "", invalid("has an empty name, a . or a .. in it", "write the prefix as the objects have it")
	}
	return bucket, key, version, nil
}

// checkKey refuses keys that cannot be paths in a tree.
func checkKey(key string) error {
	for name := range strings.SplitSeq(key, "/") {
		if name == "" || name == "." || name == ".." || strings.IndexByte(name, 0) >= 0 {
			return &sheaf.Error{Class: sheaf.Invalid, Field: "source", Msg: fmt.Sprintf("object key %q cannot be the path of a file", key), Hint: "rename the object, or name a prefix without it"}
		}
	}
	return nil
}

// bucketSource is a bucket, or a part of it.
type bucketSource struct {
	client *minio.Client
	bucket string
	prefix string // ends in a slash, or is empty
	only   string // of a single object, its name behind the prefix

	version string // of that object, where the URL names one
}

// connect makes the client by which a bucket is reached. It asks nothing of the service.
func connect(b Bucket, bucket string) (*minio.Client, error) {
	endpoint := b.Endpoint
	if endpoint == "" {
		endpoint = defaultEndpoint
	}
	u, err := url.Parse(endpoint)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || strings.Trim(u.Path, "/") != "" {
		return nil, &sheaf.Error{Class: sheaf.Invalid, Field: "client.s3.endpoint", Msg: fmt.Sprintf("endpoint %q is no URL of a service", endpoint), Hint: "write https://HOST:PORT"}
	}
	creds := credentials.NewStaticV4(b.AccessKey, b.SecretKey, b.Token)
	if b.Anonymous {
		creds = credentials.NewStatic("", "", "", credentials.SignatureAnonymous)
	}
	lookup := minio.BucketLookupDNS
	if b.PathStyle {
		lookup = minio.BucketLookupPath
	}
	client, err := minio.New(u.Host, &minio.Options{
		Creds: creds, Secure: u.Scheme == "https", Region: b.Region, BucketLookup: lookup, Transport: b.Transport, MaxRetries: maxRetries,
	})
	if err != nil {
		return nil, fmt.Errorf("reach bucket %q: %w", bucket, err)
	}
	return client, nil
}

func open(b Bucket, bucket, key, version string) (source.Source, error) {
	client, err := connect(b, bucket)
	if err != nil {
		return nil, err
	}
	s := &bucketSource{client: client, bucket: bucket, prefix: key, version: version}
	if key == "" || strings.HasSuffix(key, "/") {
		return s, nil
	}
	// Without a slash it may be an object, one that was deleted from a bucket that keeps versions, or a prefix of some.
	ctx := context.Background()
	info, err := client.StatObject(ctx, bucket, key, minio.StatObjectOptions{VersionID: version})
	object := err == nil
	switch failed := s.failed("open s3://"+bucket+"/"+key, err); {
	case err == nil:
	case sheaf.ClassOf(failed) != sheaf.NotFound || version != "":
		return nil, failed
	case info.IsDeleteMarker:
		below, err := s.holds(ctx, key)
		if err != nil {
			return nil, err
		}
		object = !below
	}
	if object {
		s.prefix, s.only = key[:strings.LastIndexByte(key, '/')+1], path.Base(key)
	} else {
		s.prefix = key + "/"
	}
	return s, nil
}

// failed gives a service's error its class and the step it came from.
func (s *bucketSource) failed(step string, err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%s: %w", step, err)
	}
	var own *sheaf.Error
	if errors.As(err, &own) {
		return fmt.Errorf("%s: %w", step, err)
	}
	e := &sheaf.Error{Class: sheaf.Unavailable, Field: "source", Msg: step, Err: err, Hint: "check the endpoint, and that the service runs"}
	switch r := minio.ToErrorResponse(err); {
	case r.Code == minio.NoSuchBucket:
		e.Class, e.Hint = sheaf.NotFound, "check the name of the bucket, and region and endpoint in the client's configuration"
	case r.Code == minio.NoSuchKey || r.StatusCode == http.StatusNotFound:
		e.Class, e.Hint = sheaf.NotFound, "check the key"
	case Refused(r):
		e.Class, e.Hint = sheaf.Denied, "check the credentials in the client's configuration, whether they have expired, and what they may read"
	case r.StatusCode == http.StatusPreconditionFailed:
		return replaced(step + ": it was replaced")
	}
	return e
}

// Refused says whether a service's answer is about who asks. Credentials that have expired are a bad request to S3.
func Refused(r minio.ErrorResponse) bool {
	switch r.Code {
	case "ExpiredToken", "ExpiredTokenException", "InvalidToken", "TokenRefreshRequired":
		return true
	}
	return r.StatusCode == http.StatusForbidden || r.StatusCode == http.StatusUnauthorized
}

// Local says that nothing of a bucket is on this machine.
func (*bucketSource) Local(string) (string, bool) { return "", false }

// Shared says that every node with the same configuration sees the same objects.
func (*bucketSource) Shared() bool { return true }

// Close has nothing to give up: connections are the process's.
func (*bucketSource) Close() error { return nil }

// key is the object's key of a path relative to the root.
func (s *bucketSource) key(rel string) (string, error) {
	if err := checkKey(rel); err != nil {
		return "", err
	}
	if s.only != "" && rel != s.only {
		return "", &sheaf.Error{Class: sheaf.NotFound, Field: "source", Msg: fmt.Sprintf("%q is not in the source, which is the one object %q", rel, s.only)}
	}
	return s.prefix + rel, nil
}

// Stat looks at one object, or at what is a directory since objects lie below it.
func (s *bucketSource) Stat(ctx context.Context, rel string) (sheaf.Entry, error) {
	key, err := s.key(rel)
	if err != nil {
		return sheaf.Entry{}, err
	}
	info, err := s.client.StatObject(ctx, s.bucket, key, minio.StatObjectOptions{VersionID: s.version})
	if err == nil {
		return fileEntry(rel, info), nil
	}
	failed := s.failed(fmt.Sprintf("look at %q", rel), err)
	if sheaf.ClassOf(failed) != sheaf.NotFound || s.version != "" {
		return sheaf.Entry{}, failed
	}
	if dir, err := s.holds(ctx, key); err != nil || !dir {
		return sheaf.Entry{}, errors.Join(err, failed)
	}
	return sheaf.Entry{Path: rel, Kind: sheaf.EntryDir}, nil
}

// fileEntry is an object as a file. Its ETag may be of its bytes or of its parts: it is
// compared, never computed.
func fileEntry(rel string, o minio.ObjectInfo) sheaf.Entry {
	return sheaf.Entry{Path: rel, Kind: sheaf.EntryFile, Size: o.Size, Tag: fmt.Sprintf("etag:%s:%d", o.ETag, o.Size)}
}

// etag is the ETag in an identity that fileEntry made.
func etag(identity string) (string, bool) {
	rest, ok := strings.CutPrefix(identity, "etag:")
	if !ok {
		return "", false
	}
	i := strings.LastIndexByte(rest, ':')
	return rest[:max(i, 0)], i > 0
}
