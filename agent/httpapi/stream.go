package httpapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sheaf-run/agent/api"
	"github.com/sheaf-run/agent/sheaf"
)

func (h ReadHeaders) write(w http.ResponseWriter) {
	w.Header().Set(api.HeaderIndex, h.Index)
	w.Header().Set(api.HeaderKnownLeader, h.KnownLeader)
	w.Header().Set(api.HeaderLastContact, h.LastContact)
}

// intParam reads a whole number from 0; "" is 0.
func intParam(name, text string) (int64, error) {
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(text, 10, 63)
	if err != nil || n < 0 {
		return 0, &sheaf.Error{Class: sheaf.Invalid, Field: name, Msg: fmt.Sprintf("%s %q is no whole number from 0", name, text)}
	}
	return n, nil
}

// lines writes NDJSON. An error before the first line makes a refused request,
// a later one the last line of the stream.
type lines struct {
	w    http.ResponseWriter
	enc  *json.Encoder
	sent bool
}

func newLines(w http.ResponseWriter) *lines { return &lines{w: w, enc: json.NewEncoder(w)} }

func (l *lines) begin() {
	if !l.sent {
		l.w.Header().Set("Content-Type", "application/x-ndjson")
		l.sent = true
	}
}

func (l *lines) write(v any) error {
	l.begin()
	return l.enc.Encode(v)
}

// end finishes the stream with err, if there is one.
func (l *lines) end(err error) error {
	if err == nil {
		l.begin()
		return nil
	}
	if !l.sent {
		return err
	}
	p := problemOf(err)
	return l.enc.Encode(api.StreamError{Error: &sheaf.Error{Class: p.Code, Msg: p.Detail, Field: p.Field, Limit: p.Limit, Hint: p.Hint}})
}

// nodeError makes an error of ours of what a node answered.
func nodeError(node sheaf.NodeID, err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return nil
	}
	class := sheaf.Unavailable
	s := status.Convert(err)
	switch s.Code() {
	case codes.NotFound:
		class = sheaf.NotFound
	case codes.InvalidArgument:
		return &sheaf.Error{Class: sheaf.Invalid, Msg: s.Message()}
	case codes.PermissionDenied:
		return &sheaf.Error{Class: sheaf.Denied, Msg: s.Message()}
	case codes.DataLoss:
		class = sheaf.Internal
	}
	return &sheaf.Error{Class: class, Msg: fmt.Sprintf("ask node %s: %s", node, s.Message())}
}
