package api

import (
	"crypto/rand"
	"encoding/hex"
	"strings"

	"github.com/sheaf-run/agent/sheaf"
)

// NewRunID makes an ID of a job's name and 40 random bits, as in "thumbs-1f3a09c2d4".
func NewRunID(job string) sheaf.RunID {
	b := make([]byte, 5)
	if _, err := rand.Read(b); err != nil {
		panic("read random bytes: " + err.Error())
	}
	suffix := "-" + hex.EncodeToString(b)
	return sheaf.RunID(strings.TrimRight(job[:min(len(job), sheaf.MaxNameLen-len(suffix))], "-._") + suffix)
}
