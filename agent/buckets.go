package agent

import (
	"fmt"
	"os"
	"path"
	"strings"

	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/sheaf-run/agent/client"
	"github.com/sheaf-run/agent/data/source/s3"
	"github.com/sheaf-run/agent/sheaf"
)

// sources puts what the client may read from elsewhere into its configuration.
func (c *ClientConfig) sources(to *client.Config) error {
	for _, b := range c.S3 {
		bucket, err := b.bucket()
		if err != nil {
			return err
		}
		to.Buckets = append(to.Buckets, bucket)
	}
	for _, h := range c.HTTPS {
		host, err := h.host()
		if err != nil {
			return err
		}
		to.Web = append(to.Web, host)
	}
	if c.IPFS != nil {
		to.Gateways = c.IPFS.Gateways
	}
	if c.Cache == "" {
		return nil
	}
	size, err := sheaf.ParseSize(c.Cache)
	if err != nil || size <= 0 {
		return &sheaf.Error{Class: sheaf.Invalid, Field: "client.cache", Msg: fmt.Sprintf("cache is %q", c.Cache), Hint: `write a size with its unit, as in "20GiB"`}
	}
	to.CacheBytes = int64(size)
	return nil
}

// bucket reads the credentials that the block names: exactly one way to get them is given.
func (c S3Config) bucket() (s3.Bucket, error) {
	field := fmt.Sprintf("client.s3 %q", c.Pattern)
	invalid := func(msg, hint string) error {
		return &sheaf.Error{Class: sheaf.Invalid, Field: field, Msg: msg, Hint: hint}
	}
	b := s3.Bucket{Pattern: c.Pattern, Endpoint: c.Endpoint, Region: c.Region, PathStyle: c.PathStyle, Anonymous: c.Anonymous, AccessKey: c.AccessKey, Writable: c.Writable}
	if _, err := path.Match(c.Pattern, "x"); err != nil || c.Pattern == "" {
		return b, invalid("the pattern of buckets is malformed", `write a name, or "*" for any`)
	}
	ways := 0
	for _, given := range []bool{c.Anonymous, c.AccessKey != "" || c.SecretKeyFile != "", c.CredentialsFile != ""} {
		if given {
			ways++
		}
	}
	if ways != 1 {
		return b, invalid(fmt.Sprintf("%d ways to credentials are given", ways), "give one: access_key with secret_key_file, credentials_file, or anonymous = true")
	}
	switch {
	case c.CredentialsFile != "":
		v, err := credentials.NewFileAWSCredentials(c.CredentialsFile, c.Profile).GetWithContext(nil)
		if err != nil {
			return b, fmt.Errorf("%s: read credentials: %w", field, err)
		}
		b.AccessKey, b.SecretKey, b.Token = v.AccessKeyID, v.SecretAccessKey, v.SessionToken
	case !c.Anonymous:
		text, err := os.ReadFile(c.SecretKeyFile)
		if err != nil {
			return b, fmt.Errorf("%s: read the secret key: %w", field, err)
		}
		b.SecretKey = strings.TrimSpace(string(text))
	}
	if !c.Anonymous && (b.AccessKey == "" || b.SecretKey == "") {
		return b, invalid("access key or secret key is empty", "give both, or anonymous = true")
	}
	return b, nil
}
