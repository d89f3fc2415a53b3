package plugin

import (
	"context"
	"errors"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sheaf-run/agent/drivers/driverpb"
	"github.com/sheaf-run/agent/sheaf"
)

// toStatus gives a driver's error the form that crosses the process border
// with its class, field, limit and hint.
func toStatus(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.Canceled):
		return status.Error(codes.Canceled, err.Error())
	case errors.Is(err, context.DeadlineExceeded):
		return status.Error(codes.DeadlineExceeded, err.Error())
	}
	fault := &driverpb.Fault{Class: string(sheaf.ClassOf(err)), Msg: err.Error()}
	if e, ok := errors.AsType[*sheaf.Error](err); ok {
		fault.Field, fault.Limit, fault.Hint = e.Field, e.Limit, e.Hint
		if e.Limit != "" { // Error says it again on the other side
			fault.Msg = strings.Replace(fault.Msg, " (limit "+e.Limit+")", "", 1)
		}
	}
	st, detailErr := status.New(codes.Unknown, err.Error()).WithDetails(fault)
	if detailErr != nil {
		return status.Error(codes.Unknown, err.Error())
	}
	return st.Err()
}

// fromStatus is the way back. Contexts' errors and sheaf.Errors come out as
// such; anything else is the transport's and is returned as it is, with false.
func fromStatus(err error) (error, bool) {
	st, ok := status.FromError(err)
	if !ok {
		return err, false
	}
	for _, d := range st.Details() {
		if f, ok := d.(*driverpb.Fault); ok {
			return &sheaf.Error{Class: sheaf.Class(f.GetClass()), Msg: f.GetMsg(), Field: f.GetField(), Limit: f.GetLimit(), Hint: f.GetHint()}, true
		}
	}
	switch st.Code() {
	case codes.Canceled:
		return context.Canceled, true
	case codes.DeadlineExceeded:
		return context.DeadlineExceeded, true
	case codes.Unimplemented:
		return &sheaf.Error{Class: sheaf.Unsupported, Msg: "driver: " + st.Message()}, true
	}
	return err, false
}
