package s3

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/sheaf-run/agent/data/source"
	"github.com/sheaf-run/agent/sheaf"
)

const (
	// versionQuery stands in a URL between an object's key and the version that is meant.
	versionQuery = "?versionId="
	// maxVersionID is how long S3 makes the ID of a version at most, in bytes.
	maxVersionID = 1024
	// maxVersions is how many of an object's versions are looked through, the newest first: those of an object that is
	// written every second for more than two hours.
	maxVersions = 10_000
	// maxLook is for how long: a service that does not know what it is asked may give the same page for ever.
	maxLook = time.Minute
)

// cutVersion takes the version off a key as a URL has it. A version is one object's.
func cutVersion(key string) (rest, version string, ok bool) {
	rest, version, found := strings.Cut(key, versionQuery)
	if !found {
		return key, "", true
	}
	version, err := url.PathUnescape(version)
	return rest, version, err == nil && version != "" && len(version) <= maxVersionID && rest != "" && !strings.HasSuffix(rest, "/")
}

// listed finds the version of an object that has an identity, where the bucket keeps versions and we may
// see them: of equal ETags and sizes the newest is as good as any. Listings name no versions, since that would
// make them list all there ever were; so it is asked for only when an object is no longer what was listed.
func (s *bucketSource) listed(ctx context.Context, rel, key, identity string) (e sheaf.Entry, version string, err error) {
	if s.version != "" {
		return e, "", nil // there is but one
	}
	look, cancel := context.WithTimeout(ctx, maxLook)
	defer cancel()
	looked := 0
	for v := range s.client.ListObjects(look, s.bucket, minio.ListObjectsOptions{Prefix: key, Recursive: true, WithVersions: true}) {
		switch {
		case look.Err() != nil:
			return e, "", ctx.Err()
		case v.Err != nil && temporary(v.Err):
			return e, "", s.failed(fmt.Sprintf("look for the version of %q that was listed", rel), v.Err)
		case v.Err != nil || v.Key != key || looked == maxVersions:
			return e, "", nil
		case v.VersionID != "" && !v.IsDeleteMarker:
			if e := fileEntry(rel, v); e.Tag == identity {
				return e, v.VersionID, nil
			}
		}
		looked++
	}
	return e, "", ctx.Err()
}

// temporary tells a service that could not answer for the moment from one that has no versions, or none for us.
func temporary(err error) bool {
	var unreached *url.Error
	status := minio.ToErrorResponse(err).StatusCode
	return errors.As(err, &unreached) || status == http.StatusTooManyRequests || status >= 500 && status != http.StatusNotImplemented
}

// replaced is the error for an object that is no longer what was listed.
func replaced(what string) error {
	return &sheaf.Error{
		Class: sheaf.Conflict, Msg: what, Err: source.ErrChanged,
		Hint: "run the job again, on objects that stay as they are, or in a bucket that keeps versions which the credentials may list and read",
	}
}
