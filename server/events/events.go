// Package events is what happened in the cluster, as the log tells it. A [Log] is told
// of every entry that its server applied, derives the events of it, and keeps
// the newest in rings bounded by bytes, one for each topic, so that a busy run
// does not push out that a node was lost.
//
// Events are a function of the log alone: whichever server is asked, the
// same entries give the same events, and an index to go on from means the same
// everywhere. A server that begins with a snapshot, or a reader that is too
// slow, misses some; [Log.Since] says so. All methods of a Log may be called concurrently.
package events

import (
	"cmp"
	"slices"
	"sync"
	stdtime "time"

	"github.com/sheaf-run/agent/server/fsm"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/sheaf"
)

// Bounds of the rings, in bytes of events as they lie in memory, roughly. Events of partitions
// come with every entry while runs go: 16 MiB are some ten seconds of a cluster at
// full speed, and days of a quiet one.
const (
	ringBytes          = 1 << 20
	partitionRingBytes = 16 << 20
)

// Gap says that events are missing: of entries after After, up to Until.
type Gap struct{ After, Until uint64 }

// Log keeps events. The zero value is not usable; see [New].
type Log struct {
	mu      sync.Mutex
	index   uint64       // of the newest entry
	at      stdtime.Time // cluster time then
	rings   map[sheaf.Topic]*ring
	watches map[*Watch]struct{}
	servers map[string]Server // of the newest configuration
}

// New makes a log without events.
func New() *Log {
	l := &Log{rings: map[sheaf.Topic]*ring{}, watches: map[*Watch]struct{}{}}
	for _, t := range sheaf.Topics {
		l.rings[t] = &ring{most: ringBytes}
	}
	l.rings[sheaf.TopicPartition].most = partitionRingBytes
	return l
}

// Applied derives the events of an entry. It is called for every entry, in order.
func (l *Log) Applied(a fsm.Applied) {
	var d derived
	if a.Reply.Err == nil {
		d.index, d.at, d.after = a.Index, time(a.After.TimeMs()), a.After
		d.derive(a)
	}
	l.mu.Lock()
	l.at = time(a.After.TimeMs())
	l.mu.Unlock()
	l.add(a.Index, d.events)
}

// Restored drops everything: the state is now that of a snapshot.
func (l *Log) Restored(s *state.Snapshot) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.index, l.at = s.Index(), time(s.TimeMs())
	for _, r := range l.rings {
		*r = ring{most: r.most, dropped: l.index}
	}
	l.wake(sheaf.Topics)
}

func (l *Log) add(index uint64, events []sheaf.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.index = index
	var topics []sheaf.Topic
	for _, e := range events {
		l.rings[e.Topic].push(e)
		if !slices.Contains(topics, e.Topic) {
			topics = append(topics, e.Topic)
		}
	}
	l.wake(topics)
}

// Index is that of the newest entry whose events are here.
func (l *Log) Index() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.index
}

// Since gives the events of the topics after an entry, those of one entry never torn apart: at most
// about most of them, in order of their entries, and within one of [sheaf.Topics]. until
// is the entry to go on after. A gap says that some before them are not here any more.
func (l *Log) Since(after uint64, topics []sheaf.Topic, most int) (events []sheaf.Event, until uint64, gap *Gap) {
	l.mu.Lock()
	defer l.mu.Unlock()
	until = l.index
	if after > l.index { // of another cluster, or this server is behind
		return nil, after, nil
	}
	for _, t := range sheaf.Topics {
		if !slices.Contains(topics, t) {
			continue
		}
		r := l.rings[t]
		if r.dropped > after && (gap == nil || r.dropped > gap.Until) {
			gap = &Gap{after, r.dropped}
		}
		part, whole := r.since(after, most)
		events = append(events, part...)
		until = min(until, whole)
	}
	slices.SortStableFunc(events, func(a, b sheaf.Event) int { return cmp.Compare(a.Index, b.Index) })
	if i := slices.IndexFunc(events, func(e sheaf.Event) bool { return e.Index > until }); i >= 0 {
		events = events[:i]
	}
	return events, until, gap
}

// Watch is told when there may be more.
type Watch struct {
	C      chan struct{} // of size 1
	log    *Log
	topics []sheaf.Topic
}

// Watch tells of events of the topics from now on. The caller closes it.
func (l *Log) Watch(topics []sheaf.Topic) *Watch {
	w := &Watch{C: make(chan struct{}, 1), log: l, topics: topics}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.watches[w] = struct{}{}
	return w
}

// Close ends the watch.
func (w *Watch) Close() {
	w.log.mu.Lock()
	defer w.log.mu.Unlock()
	delete(w.log.watches, w)
}

// wake tells those who watch one of the topics.
func (l *Log) wake(topics []sheaf.Topic) {
	if len(topics) == 0 {
		return
	}
	for w := range l.watches {
		if slices.ContainsFunc(w.topics, func(t sheaf.Topic) bool { return slices.Contains(topics, t) }) {
			select {
			case w.C <- struct{}{}:
			default: // it has not looked since it was told last
			}
		}
	}
}
