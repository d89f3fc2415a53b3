package s3

import (
	"fmt"
	"path"

	"github.com/minio/minio-go/v7"

	"github.com/sheaf-run/agent/sheaf"
)

// Writable gives the client by which results are written below an s3:// URL, with the URL's bucket and key.
// The first bucket counts whose pattern matches and that may be written; without one the error is of class Denied.
func Writable(buckets []Bucket, rawURL string) (client *minio.Client, bucket, key string, err error) {
	bucket, key, version, err := parse(rawURL)
	if err == nil && version != "" {
		err = &sheaf.Error{Class: sheaf.Invalid, Field: "publish.to", Msg: fmt.Sprintf("%q names a version, which can only be read", rawURL), Hint: "write s3://BUCKET/PREFIX, and a literal ? as %3F"}
	}
	if err != nil {
		return nil, "", "", err
	}
	for _, b := range buckets {
		if ok, err := path.Match(b.Pattern, bucket); err != nil || !ok || !b.Writable {
			continue
		}
		client, err = connect(b, bucket)
		return client, bucket, key, err
	}
	return nil, "", "", &sheaf.Error{
		Class: sheaf.Denied, Field: "publish.to", Msg: fmt.Sprintf("the configuration of this client lets nobody write to bucket %q", bucket),
		Hint: fmt.Sprintf("add writable = true to s3 %q in its client block", bucket),
	}
}
