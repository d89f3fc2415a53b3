// Package monitor lets others follow an agent's log. A [Log] is a slog.Handler in front of the
// one that writes: it keeps the newest records in a ring and hands every
// record to those who follow. Nobody can hold up the agent: a follower that is
// slow misses records, and is told how many. All methods may be called concurrently.
package monitor

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/sheaf-run/agent/api"
)

const (
	// kept is how many records a new follower gets at once: what led to a mistake is
	// mostly in the last of them.
	kept = 256
	// queued is how many records wait for one follower.
	queued = 1024
	// maxText bounds a message and an attribute, in bytes.
	maxText = 4 << 10
)

// timeFormat is RFC 3339 with milliseconds.
const timeFormat = "2006-01-02T15:04:05.000Z07:00"

// Log is a handler that others can follow.
type Log struct {
	next slog.Handler
	hub  *hub
	// of With and WithGroup
	attrs  []slog.Attr
	prefix string
}

// hub is what all handlers made of one Log share.
type hub struct {
	level atomic.Int64 // the lowest that somebody follows

	mu        sync.Mutex
	ring      []line
	at        int // where the ring's next record goes, once it is full
	followers map[*Follower]struct{}
}

type line struct {
	level slog.Level
	api.LogLine
}

// nobody is a level above all records'.
const nobody = slog.Level(1 << 20)

// New puts a Log in front of a handler.
func New(next slog.Handler) *Log {
	l := &Log{next: next, hub: &hub{followers: map[*Follower]struct{}{}}}
	l.hub.level.Store(int64(nobody))
	return l
}

// Enabled implements slog.Handler: also what only a follower wants is made.
func (l *Log) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.Level(l.hub.level.Load()) || l.next.Enabled(ctx, level)
}

// Handle implements slog.Handler.
func (l *Log) Handle(ctx context.Context, r slog.Record) error {
	x := line{r.Level, api.LogLine{Time: r.Time.Format(timeFormat), Level: r.Level.String(), Message: cut(r.Message)}}
	add := func(prefix string, a slog.Attr) {
		if x.Attrs == nil {
			x.Attrs = map[string]string{}
		}
		flatten(x.Attrs, prefix, a)
	}
	for _, a := range l.attrs {
		add("", a)
	}
	r.Attrs(func(a slog.Attr) bool {
		add(l.prefix, a)
		return true
	})
	l.hub.publish(x)
	if !l.next.Enabled(ctx, r.Level) {
		return nil
	}
	return l.next.Handle(ctx, r)
}

func flatten(into map[string]string, prefix string, a slog.Attr) {
	v := a.Value.Resolve()
	if v.Kind() != slog.KindGroup {
		into[prefix+a.Key] = cut(v.String())
		return
	}
	if a.Key != "" {
		prefix += a.Key + "."
	}
	for _, x := range v.Group() {
		flatten(into, prefix, x)
	}
}

func cut(s string) string {
	if len(s) > maxText {
		return s[:maxText] + "…"
	}
	return s
}

// WithAttrs implements slog.Handler.
func (l *Log) WithAttrs(attrs []slog.Attr) slog.Handler {
	c := *l
	c.next = l.next.WithAttrs(attrs)
	c.attrs = slices.Clone(l.attrs)
	for _, a := range attrs {
		a.Key = l.prefix + a.Key
		c.attrs = append(c.attrs, a)
	}
	return &c
}

// WithGroup implements slog.Handler.
func (l *Log) WithGroup(name string) slog.Handler {
	c := *l
	c.next = l.next.WithGroup(name)
	if name != "" {
		c.prefix = l.prefix + name + "."
	}
	return &c
}

func (h *hub) publish(x line) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.ring) < kept {
		h.ring = append(h.ring, x)
	} else {
		h.ring[h.at] = x
		h.at = (h.at + 1) % kept
	}
	for f := range h.followers {
		f.offer(x)
	}
}

// Follower gets records from C until it is closed.
type Follower struct {
	C     chan api.LogLine
	hub   *hub
	level slog.Level
	lost  uint64
}

// Follow gives the records kept that are of a level or above, and those to come.
// The caller closes it.
func (l *Log) Follow(level slog.Level) *Follower {
	f := &Follower{C: make(chan api.LogLine, queued), hub: l.hub, level: level}
	h := l.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := range h.ring {
		f.offer(h.ring[(h.at+i)%len(h.ring)])
	}
	h.followers[f] = struct{}{}
	h.relevel()
	return f
}

// Close ends following.
func (f *Follower) Close() {
	f.hub.mu.Lock()
	defer f.hub.mu.Unlock()
	delete(f.hub.followers, f)
	f.hub.relevel()
}

func (h *hub) relevel() {
	lowest := nobody
	for f := range h.followers {
		lowest = min(lowest, f.level)
	}
	h.level.Store(int64(lowest))
}

// offer gives a record to a follower, unless its queue is full.
func (f *Follower) offer(x line) {
	if x.level < f.level {
		return
	}
	x.Dropped = f.lost
	select {
	case f.C <- x.LogLine:
		f.lost = 0
	default:
		f.lost++
	}
}
