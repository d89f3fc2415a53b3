package rpc

import (
	"context"
	"errors"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/sheaf-run/agent/server/consensus"
	"github.com/sheaf-run/agent/sheaf"
)

// LeaderTrailer is the trailer of an answer FAILED_PRECONDITION that holds
// the leader's address, or nothing while there is none.
const LeaderTrailer = "sheaf-leader"

// codeOf gives each class its code. FAILED_PRECONDITION means one thing only: ask the leader.
func codeOf(c sheaf.Class) codes.Code {
	switch c {
	case sheaf.Invalid, sheaf.TooLarge, sheaf.Unsupported:
		return codes.InvalidArgument
	case sheaf.NotFound:
		return codes.NotFound
	case sheaf.Conflict:
		return codes.AlreadyExists
	case sheaf.NotLeader:
		return codes.FailedPrecondition
	case sheaf.Unavailable, sheaf.TimedOut:
		return codes.Unavailable
	case sheaf.Denied:
		return codes.PermissionDenied
	}
	return codes.Internal
}

// asStatus makes an answer of an error; where it is that another server
// leads, trailer gets its address.
func asStatus(err error, trailer func(metadata.MD)) error {
	if err == nil {
		return nil
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return status.FromContextError(err).Err()
	}
	var le *consensus.LeaderError
	if errors.As(err, &le) {
		trailer(metadata.Pairs(LeaderTrailer, le.Address))
		return status.Error(codes.FailedPrecondition, err.Error())
	}
	return status.Error(codeOf(sheaf.ClassOf(err)), err.Error())
}

// Status makes the answer of a call that failed, in the codes that clients know; nil stays nil.
func Status(ctx context.Context, err error) error { return unaryStatus(ctx, err) }

func unaryStatus(ctx context.Context, err error) error {
	return asStatus(err, func(md metadata.MD) { _ = grpc.SetTrailer(ctx, md) })
}
