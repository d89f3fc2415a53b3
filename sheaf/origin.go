package sheaf

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// Origin is a mark of 16 hex digits for where the files of a source come from: its bucket, host, CID or
// archive. Nodes say by origins what they have fetched, and jobs are placed by them. "" is for
// a node's own files, which are where they are.
func Origin(sourceURL string) string {
	scheme, rest, ok := strings.Cut(sourceURL, "://")
	if !ok || scheme == "file" {
		return ""
	}
	place, _, _ := strings.Cut(rest, "/")
	if place == "" { // a path: car:///archives/a.car
		place = rest
	}
	sum := sha256.Sum256([]byte(scheme + "://" + place))
	return hex.EncodeToString(sum[:8])
}
