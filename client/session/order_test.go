package session

import (
	"testing"

	"github.com/sheaf-run/agent/internal/wire"
)

// TestNothingOfAnOlderStream: a leader that goes on sending on a stream that
// its client has given up is not heard, whatever is on the way.
func TestNothingOfAnOlderStream(t *testing.T) {
	sessions := make(chan struct{}, 100)
	s := &server{
		register: registered(0),
		session: func(st wire.Servers_SessionServer) error {
			sessions <- struct{}{}
			if _, err := st.Recv(); err != nil {
				return err
			}
			for _, m := range []*wire.FromServer{
				{Body: &wire.FromServer_Welcome{Welcome: &wire.Welcome{}}},
				{Body: &wire.FromServer_Lease{Lease: &wire.Lease{}}},
				{Body: &wire.FromServer_End{End: &wire.RunEnd{}}}, // the handler ends the stream on it
			} {
				if err := st.Send(m); err != nil {
					return err
				}
			}
			for { // until the client's end of it reaches this side
				if err := st.Send(&wire.FromServer{Body: &wire.FromServer_Lease{Lease: &wire.Lease{}}}); err != nil {
					return err
				}
			}
		},
	}
	r := newRecorder()
	run(t, r, serve(t, s))
	for range 3 {
		for _, want := range []string{"hello", "welcome", "lease", "end", "closed"} {
			r.await(t, want)
		}
	}
	if len(sessions) < 3 {
		t.Errorf("%d streams, want at least 3", len(sessions))
	}
}
