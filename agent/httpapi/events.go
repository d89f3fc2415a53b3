package httpapi

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sheaf-run/agent/api"
	"github.com/sheaf-run/agent/sheaf"
)

const (
	// defaultBeat is how often a stream without news says that it is alive.
	defaultBeat = 10 * time.Second
	// eventPage is how many events are taken at once: what one line holds stays below a megabyte.
	eventPage = 500
	// writeTimeout ends a stream whose reader takes nothing any more.
	writeTimeout = 30 * time.Second
)

// topicNeeds is what a caller must hold to read events of a topic, in the event's
// namespace where the capability is of namespaces. A topic that is not here is for nobody.
var topicNeeds = map[sheaf.Topic]Capability{
	sheaf.TopicRun: ReadJobs, sheaf.TopicPartition: ReadJobs, sheaf.TopicNamespace: ReadJobs, sheaf.TopicSecret: ReadSecrets,
	sheaf.TopicNode: ReadNodes, sheaf.TopicServer: ReadAgent, sheaf.TopicOperator: ReadOperator, sheaf.TopicACL: ManageACL,
}

// eventParams are the parameters of the stream of events.
type eventParams struct {
	Topic       string `query:"topic" maxLength:"128" doc:"topics, separated by commas; all that the caller may read unless given"`
	Filter      string `query:"filter" doc:"HCL expression over the fields of an event"`
	Index       string `query:"index" doc:"go on after this entry of the log; 0 begins with all that is kept, none with what comes now"`
	Namespace   string `query:"namespace" maxLength:"64" doc:"events of this namespace and of none; all that the caller may read unless given"`
	LastEventID string `header:"Last-Event-ID" maxLength:"20" doc:"index, as a browser's EventSource sends it"`
	Accept      string `header:"Accept" doc:"text/event-stream for server-sent events"`
}

// events streams what happens. Any server answers, since all derive the same.
func (a *API) events(w http.ResponseWriter, r *http.Request, in *eventParams) error {
	f, err := eventFilterOf(r.Context(), in)
	if err != nil {
		return err
	}
	release, err := a.waits.take()
	if err != nil {
		return err
	}
	defer release()
	log := a.Server.Events()
	after, given, err := in.after()
	if err != nil {
		return err
	}
	if !given {
		after = log.Index()
	}
	watch := log.Watch(f.topics)
	defer watch.Close()
	out := newEventWriter(w, strings.Contains(in.Accept, "text/event-stream"))
	beat := time.NewTicker(a.Limits.Beat)
	defer beat.Stop()
	// A first line at once: the caller knows from where on nothing is missed.
	for first := true; ; first = false {
		found, until, gap := log.Since(after, f.topics, eventPage)
		line := api.EventLine{Index: until}
		if line.Events, err = f.take(found); err != nil {
			return out.fail(err)
		}
		if gap != nil {
			line.Gap = (*api.EventGap)(gap)
		}
		if first || len(line.Events) > 0 || gap != nil {
			if out.write(line) != nil {
				return nil // the reader went away, or takes nothing
			}
		}
		more := len(found) > 0 && until > after
		after = until
		if more {
			continue // until nothing is left
		}
		select {
		case <-r.Context().Done():
			return out.fail(revoked(r.Context()))
		case <-watch.C:
		case <-beat.C:
			if out.write(api.EventLine{Index: after}) != nil {
				return nil
			}
		}
	}
}

func (p *eventParams) after() (index uint64, given bool, err error) {
	text := p.Index
	if p.LastEventID != "" {
		text = p.LastEventID
	}
	if text == "" {
		return 0, false, nil
	}
	index, _, err = ReadParams{Index: text}.parse()
	return index, true, err
}

// eventFilter is which events a caller gets.
type eventFilter struct {
	ctx       context.Context
	topics    []sheaf.Topic
	filter    *Filter
	namespace string // "" and "*" are all that the caller may read
}

func eventFilterOf(ctx context.Context, in *eventParams) (eventFilter, error) {
	f := eventFilter{ctx: ctx, namespace: in.Namespace}
	var err error
	if f.filter, err = ParseFilter(in.Filter); err != nil {
		return f, err
	}
	if _, err := f.filter.Match(sheaf.Event{}); err != nil {
		return f, err
	}
	who := aclOf(ctx)
	if in.Topic == "" {
		for _, t := range sheaf.Topics {
			if who.AllowsSomewhere(topicNeeds[t]) {
				f.topics = append(f.topics, t)
			}
		}
		return f, nil
	}
	for _, name := range strings.Split(in.Topic, ",") {
		t := sheaf.Topic(strings.TrimSpace(name))
		switch need, known := topicNeeds[t]; {
		case !known:
			return f, &sheaf.Error{Class: sheaf.Invalid, Field: "topic", Msg: fmt.Sprintf("there is no topic %q", name), Limit: topicList()}
		case !who.AllowsSomewhere(need):
			return f, &sheaf.Error{Class: sheaf.Denied, Field: "topic", Msg: fmt.Sprintf("the token lacks %s, which events of topic %q need", need, t), Hint: "`agent acl token self` shows what it may do"}
		}
		f.topics = append(f.topics, t)
	}
	return f, nil
}

func topicList() string {
	var names []string
	for _, t := range sheaf.Topics {
		names = append(names, string(t))
	}
	return strings.Join(names, ", ")
}

// take gives those of the events that the caller may see and wants.
func (f eventFilter) take(all []sheaf.Event) ([]sheaf.Event, error) {
	who := aclOf(f.ctx)
	var kept []sheaf.Event
	for _, e := range all {
		need, known := topicNeeds[e.Topic]
		if !known || !who.Allows(need, e.Namespace) || f.namespace != "" && f.namespace != "*" && e.Namespace != "" && e.Namespace != f.namespace {
			continue
		}
		ok, err := f.filter.Match(e)
		if err != nil {
			return nil, err
		}
		if ok {
			kept = append(kept, e)
		}
	}
	return slices.Clip(kept), nil
}

// eventWriter writes lines as NDJSON or as server-sent events.
type eventWriter struct {
	w    http.ResponseWriter
	ctl  *http.ResponseController
	sse  bool
	sent bool
}

func newEventWriter(w http.ResponseWriter, sse bool) *eventWriter {
	return &eventWriter{w: w, ctl: http.NewResponseController(w), sse: sse}
}

func (e *eventWriter) begin() {
	if e.sent {
		return
	}
	e.sent = true
	kind := "application/x-ndjson"
	if e.sse {
		kind = "text/event-stream"
	}
	e.w.Header().Set("Content-Type", kind)
}

// write sends a line at once. A reader that takes nothing for long is an error.
func (e *eventWriter) write(line any) error {
	e.begin()
	b, err := json.Marshal(line)
	if err != nil {
		return err
	}
	if err := e.ctl.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil && e.ctl.Flush() != nil {
		return err
	}
	if e.sse {
		id := ""
		if l, ok := line.(api.EventLine); ok {
			id = "id: " + strconv.FormatUint(l.Index, 10) + "\n"
		}
		b = fmt.Appendf(nil, "%sdata: %s\n", id, b)
	}
	if _, err := e.w.Write(append(b, '\n')); err != nil {
		return err
	}
	return e.ctl.Flush()
}

// fail ends the stream with an error: as a refusal while nothing was sent, else as its last line.
func (e *eventWriter) fail(err error) error {
	if err == nil || !e.sent {
		return err
	}
	p := problemOf(err)
	_ = e.write(api.StreamError{Error: &sheaf.Error{Class: p.Code, Msg: p.Detail, Field: p.Field, Limit: p.Limit, Hint: p.Hint}})
	return nil
}
