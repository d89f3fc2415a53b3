package server_test

import (
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sheaf-run/agent/internal/wire"
)

// TestRegisteredOverEndsTheStream guards against a registration that is repeated, or arrives late: it
// raises the session's number, and all that the open stream reported would be answered "resend" for ever.
func TestRegisteredOverEndsTheStream(t *testing.T) {
	h := startHost(t, "", "")
	conn, err := wire.Dialer{}.Server(h.address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c := wire.NewServersClient(conn)
	register := func() uint64 {
		resp, err := c.Register(t.Context(), &wire.RegisterRequest{NodeJson: []byte(`{"id":"n","region":"test"}`), BootId: "b"})
		if err != nil {
			t.Fatal(err)
		}
		return resp.Session
	}
	st, err := c.Session(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	hello := &wire.Hello{Node: "n", Session: register(), BootId: "b"}
	if err := st.Send(&wire.FromClient{Body: &wire.FromClient_Hello{Hello: hello}}); err != nil {
		t.Fatal(err)
	}
	if m, err := st.Recv(); err != nil || m.GetWelcome() == nil {
		t.Fatalf("welcome: %v, %v", m, err)
	}
	register()
	for err == nil {
		_, err = st.Recv()
	}
	if status.Code(err) != codes.Unavailable {
		t.Errorf("the stream ended with %v", err)
	}
}
