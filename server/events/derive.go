package events

import (
	"cmp"
	stdtime "time"

	"github.com/sheaf-run/agent/server/fsm"
	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/sheaf"
)

func time(ms int64) stdtime.Time { return stdtime.UnixMilli(ms).UTC() }

// derived is the events of one entry.
type derived struct {
	index  uint64
	at     stdtime.Time
	after  *state.Snapshot
	events []sheaf.Event
}

func (d *derived) add(e sheaf.Event) {
	e.Index, e.Time = d.index, d.at
	d.events = append(d.events, e)
}

// rows says what a change of a row of each table means. A table without an entry has no events;
// a test names those that were forgotten.
var rows = map[string]func(*derived, state.Change){
	"runs":       of((*derived).run),
	"nodes":      of((*derived).node),
	"backups":    nil, // the command that placed it tells
	"touched":    nil, // it is about the others
	"tombstones": nil, // the deleted run tells
	"secrets":    named(sheaf.TopicSecret, "Secret", func(x *state.Secret) (string, string) { return x.Name, x.Namespace }),
	"policies":   named(sheaf.TopicACL, "Policy", func(x *state.Policy) (string, string) { return x.Name, "" }),
	"tokens":     named(sheaf.TopicACL, "Token", func(x *state.Token) (string, string) { return x.Accessor, "" }),
	"namespaces": named(sheaf.TopicNamespace, "Namespace", func(x *state.Namespace) (string, string) { return x.Name, x.Name }),
}

// named makes a function over rows that have no more to tell than what they are called.
func named[T any](topic sheaf.Topic, noun string, call func(*T) (name, namespace string)) func(*derived, state.Change) {
	return of(func(d *derived, before, after *T) {
		what := "Changed"
		switch {
		case before == nil:
			what = "Created"
		case after == nil:
			what = "Deleted"
		}
		name, namespace := call(cmp.Or(after, before))
		d.add(sheaf.Event{Topic: topic, Type: noun + what, Key: name, Namespace: namespace})
	})
}

// of makes a function over rows of one type from one over changes.
func of[T any](f func(d *derived, before, after *T)) func(*derived, state.Change) {
	return func(d *derived, c state.Change) {
		before, _ := c.Before.(*T)
		after, _ := c.After.(*T)
		f(d, before, after)
	}
}

// derive makes the events of an entry: first what its command did to partitions,
// since that often is why a run's status changed, then what became of the rows.
func (d *derived) derive(a fsm.Applied) {
	d.command(a)
	for _, c := range a.Changes {
		if f := rows[c.Table]; f != nil {
			f(d, c)
		}
	}
}
