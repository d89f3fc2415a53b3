package plugin

import (
	"context"
	"time"

	"google.golang.org/grpc"

	"github.com/sheaf-run/agent/drivers/driverpb"
)

// endTimeout is how long a driver may take to end what it runs once Execute's
// context has ended, as to remove its containers from a busy disk; then its stream is cut.
const endTimeout = 30 * time.Second

// call is one unary call.
func call[Req, Resp any](ctx context.Context, h *Host, req Req, method func(driverpb.DriverClient, context.Context, Req, ...grpc.CallOption) (Resp, error)) (Resp, error) {
	var none Resp
	p, err := h.process(ctx)
	if err != nil {
		return none, err
	}
	resp, err := method(p.client, ctx, req)
	if err != nil {
		return none, h.finish(ctx, p, err)
	}
	return resp, nil
}

// Execute is the driver's, by the process that Recover was called for. It returns ErrCrashed when the process dies; what
// it ran and had no Exited is lost. When ctx ends it waits until the driver has
// ended what cannot be recovered.
func (h *Host) Execute(ctx context.Context, commands <-chan *driverpb.Command, events chan<- *driverpb.Event) error {
	p, err := h.process(ctx)
	if err != nil {
		return err
	}
	if err := h.mayExecute(p); err != nil {
		return err
	}
	// The stream outlives ctx, so that the driver's end of Execute can be waited for.
	streamCtx, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	stream, err := p.client.Execute(streamCtx)
	if err != nil {
		return h.finish(ctx, p, err)
	}
	defer context.AfterFunc(ctx, func() {
		t := time.AfterFunc(endTimeout, cut)
		context.AfterFunc(streamCtx, func() { t.Stop() })
	})()

	sent := make(chan struct{})
	go func() {
		defer close(sent)
		sendCommands(ctx, stream, commands)
	}()
	err = receiveEvents(ctx, stream, events)
	cut()
	<-sent
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if isEOF(err) {
		return nil
	}
	return h.finish(ctx, p, err)
}

// sendCommands sends until commands is closed, ctx ends or the stream is over.
func sendCommands(ctx context.Context, stream driverpb.Driver_ExecuteClient, commands <-chan *driverpb.Command) {
	for {
		select {
		case c, ok := <-commands:
			if !ok {
				_ = stream.CloseSend() // the receiving side sees what became of the stream
				return
			}
			if stream.Send(&driverpb.Commands{Commands: gather(c, commands, commandBytes)}) != nil {
				return
			}
		case <-ctx.Done():
			if stream.Send(&driverpb.Commands{Cancel: true}) == nil {
				_ = stream.CloseSend()
			}
			return
		case <-stream.Context().Done():
			return
		}
	}
}

// receiveEvents passes events on until the stream ends, and drops them once ctx has ended.
func receiveEvents(ctx context.Context, stream driverpb.Driver_ExecuteClient, events chan<- *driverpb.Event) error {
	for {
		msg, err := stream.Recv()
		if err != nil {
			return err
		}
		for _, ev := range msg.GetEvents() {
			select {
			case events <- ev:
			case <-ctx.Done():
			}
		}
	}
}
