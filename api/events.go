package api

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/sheaf-run/agent/sheaf"
)

// EventLine is a line of the stream of events. Without events it is a beat, that says the stream is
// alive and moves the index on.
type EventLine struct {
	Index  uint64        `json:"index"`            // where to go on after; events of one entry are never torn apart
	Events []sheaf.Event `json:"events,omitempty"` // in the order of the log
	Gap    *EventGap     `json:"gap,omitempty"`    // events before those of this line are missing
}

// EventGap says that events of entries after After and up to Until may be missing: the
// server keeps them no more.
type EventGap struct {
	After uint64 `json:"after"`
	Until uint64 `json:"until"`
}

// EventOptions say which events are wanted.
type EventOptions struct {
	Topics []sheaf.Topic // all that the caller may read, unless given
	Filter string        // HCL expression over the fields of an event
	// After is the index to go on after, as the last line gave it; nil is from now on, 0
	// all that the server keeps.
	After *uint64
	// Namespace is whose events are wanted, beside those of no namespace; "*" is all. The client's unless given.
	Namespace string
}

// Events follows what happens, until ctx ends, the sequence is left or the
// connection breaks; then go on after the last line's Index. The first line comes at once.
func (c *Client) Events(ctx context.Context, o EventOptions) iter.Seq2[EventLine, error] {
	q := url.Values{}
	var topics []string
	for _, t := range o.Topics {
		topics = append(topics, string(t))
	}
	set(q, "topic", strings.Join(topics, ","))
	set(q, "filter", o.Filter)
	set(q, "namespace", o.Namespace)
	if o.After != nil {
		q.Set("index", strconv.FormatUint(*o.After, 10))
	}
	return linesOf[EventLine](ctx, c, "/v1/events", q)
}

// MonitorOptions say whose log is wanted, and how much of it.
type MonitorOptions struct {
	Level string // debug, info, warn or error; info unless given
	Agent string // name of another agent, or ID of its node; the one that answers unless given
}

// LogLine is a record of an agent's log. Without a message it is a beat.
type LogLine struct {
	Time    string            `json:"time,omitempty"` // RFC 3339, with milliseconds
	Level   string            `json:"level,omitempty"`
	Message string            `json:"msg,omitempty"`
	Attrs   map[string]string `json:"attrs,omitempty"`
	Dropped uint64            `json:"dropped,omitempty"` // records before this one that the reader was too slow for
}

// Monitor follows an agent's log, from its newest records on.
func (c *Client) Monitor(ctx context.Context, o MonitorOptions) iter.Seq2[LogLine, error] {
	q := url.Values{}
	set(q, "level", o.Level)
	set(q, "agent", o.Agent)
	return linesOf[LogLine](ctx, c, "/v1/agent/monitor", q)
}

func set(q url.Values, name, value string) {
	if value != "" {
		q.Set(name, value)
	}
}

// linesOf reads an NDJSON stream of T. An error is the last of the sequence.
func linesOf[T any](ctx context.Context, c *Client, path string, q url.Values) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		var none T
		left := false
		err := c.stream(ctx, http.MethodGet, path, q, nil, func(raw json.RawMessage) error {
			var line T
			if err := json.Unmarshal(raw, &line); err != nil {
				return fmt.Errorf("read a line of %s: %w", path, err)
			}
			if !yield(line, nil) {
				left = true
				return context.Canceled
			}
			return nil
		})
		if err != nil && !left {
			yield(none, err)
		}
	}
}
