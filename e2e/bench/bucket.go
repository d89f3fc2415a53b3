package main

import (
	"crypto/md5"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sort"
	"strconv"
	"strings"
	"time"
)

const (
	bucketName = "bench"
	bucketDir  = 1000 // objects below a prefix
	bucketPage = 1000 // keys of a listing's page at most, as S3 has it
)

// bucket is an S3 service with one bucket, whose n empty objects are computed and not kept.
type bucket struct {
	*httptest.Server
	n int
}

func newBucket(n int) *bucket {
	b := &bucket{n: n}
	b.Server = httptest.NewServer(b)
	return b
}

// config is the part of a client's configuration by which it reaches the bucket.
func (b *bucket) config() string {
	return fmt.Sprintf("  s3 %q {\n    endpoint   = %q\n    region     = \"us-east-1\"\n    path_style = true\n    anonymous  = true\n  }\n", bucketName, b.URL)
}

// key is that of object i; they ascend.
func (*bucket) key(i int) string { return fmt.Sprintf("in/%04d/%09d.bin", i/bucketDir, i) }

// etag is what S3 gives a small object, an MD5, here of its key.
func (*bucket) etag(key string) string {
	sum := md5.Sum([]byte(key)) //nolint:gosec // the form of S3's own
	return hex.EncodeToString(sum[:])
}

// ServeHTTP lists, or gives an object or its head.
func (b *bucket) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	key, ok := strings.CutPrefix(r.URL.Path, "/"+bucketName+"/")
	switch {
	case !ok || r.Method != http.MethodGet && r.Method != http.MethodHead:
		w.WriteHeader(http.StatusNotFound)
	case key == "":
		b.list(w, r)
	default:
		i := b.from(key)
		if i == b.n || b.key(i) != key {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		w.Header().Set("ETag", `"`+b.etag(key)+`"`)
		http.ServeContent(w, r, "", bucketTime, strings.NewReader(""))
	}
}

// bucketTime is when all objects were written.
var bucketTime = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// from is the first object whose key is at least the given one, or n.
func (b *bucket) from(key string) int {
	return sort.Search(b.n, func(i int) bool { return b.key(i) >= key })
}

// list answers ListObjectsV2. It writes its XML itself: the time that an encoder takes is not to be measured.
func (b *bucket) list(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	prefix, most := q.Get("prefix"), bucketPage
	if n, err := strconv.Atoi(q.Get("max-keys")); err == nil {
		most = min(n, most)
	}
	i := b.from(prefix)
	for _, after := range []string{q.Get("start-after"), q.Get("continuation-token")} {
		if after != "" {
			i = max(i, b.from(after+"\x00"))
		}
	}
	var contents strings.Builder
	last, n := "", 0
	more := false
	for ; i < b.n; i++ {
		key := b.key(i)
		if !strings.HasPrefix(key, prefix) {
			break
		}
		if more = n == most; more {
			break
		}
		last, n = key, n+1
		contents.WriteString("<Contents><Key>" + key + "</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>&quot;" + b.etag(key) + "&quot;</ETag><Size>0</Size><StorageClass>STANDARD</StorageClass></Contents>")
	}
	next := ""
	if more {
		next = "<NextContinuationToken>" + last + "</NextContinuationToken>"
	}
	w.Header().Set("Content-Type", "application/xml")
	fmt.Fprintf(w, `<?xml version="1.0" encoding="UTF-8"?>
<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>%s</Name><Prefix>%s</Prefix><KeyCount>%d</KeyCount><MaxKeys>%d</MaxKeys><IsTruncated>%t</IsTruncated>%s%s</ListBucketResult>`,
		bucketName, prefix, n, most, more, next, contents.String())
}
