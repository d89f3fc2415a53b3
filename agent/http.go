package agent

import (
	"fmt"
	"math"
	"syscall"
	"time"

	"github.com/sheaf-run/agent/agent/httpapi"
	"github.com/sheaf-run/agent/sheaf"
)

// HTTPConfig bounds what callers of the HTTP API can take of the agent. What is
// not given has the defaults of httpapi.Limits.
type HTTPConfig struct {
	MaxConnections int    `hcl:"max_connections,optional"`             // 8192, or a quarter of the open files that the process may have
	MaxPerAddress  int    `hcl:"max_connections_per_address,optional"` // 1024, or a quarter of max_connections where that is not given
	MaxWaits       int    `hcl:"max_waits,optional"`                   // blocking reads and streams at once; 4096
	HeaderTimeout  string `hcl:"header_timeout,optional"`              // 10s
	Beat           string `hcl:"heartbeat,optional"`                   // of streams without news; 10s
}

// limits are those of the configuration, checked.
func (h *HTTPConfig) limits() (httpapi.Limits, error) {
	if h == nil {
		h = &HTTPConfig{}
	}
	l := httpapi.Limits{Files: openFiles(), Connections: h.MaxConnections, PerAddress: h.MaxPerAddress, Waits: h.MaxWaits}
	for _, n := range []struct {
		name  string
		value int
	}{{"max_connections", h.MaxConnections}, {"max_connections_per_address", h.MaxPerAddress}, {"max_waits", h.MaxWaits}} {
		if n.value < 0 || n.value > 1_000_000 {
			return l, &sheaf.Error{Class: sheaf.Invalid, Field: "http." + n.name, Msg: fmt.Sprintf("http.%s is %d", n.name, n.value), Limit: "1 to 1000000"}
		}
	}
	for _, d := range []struct {
		name, text string
		into       *time.Duration
	}{{"header_timeout", h.HeaderTimeout, &l.Header}, {"heartbeat", h.Beat, &l.Beat}} {
		if d.text == "" {
			continue
		}
		v, err := time.ParseDuration(d.text)
		if err != nil || v < 10*time.Millisecond || v > 10*time.Minute {
			return l, &sheaf.Error{Class: sheaf.Invalid, Field: "http." + d.name, Msg: fmt.Sprintf("http.%s is %q", d.name, d.text), Limit: "10ms to 10m", Hint: `write it as in "10s"`}
		}
		*d.into = v
	}
	return l, nil
}

// openFiles is how many files this process may have open; 0 where nobody says.
func openFiles() int {
	var l syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l) != nil {
		return 0
	}
	return int(min(l.Cur, math.MaxInt32))
}
