package wire_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/sheaf-run/agent/internal/pki"
	"github.com/sheaf-run/agent/internal/pki/pkitest"
	"github.com/sheaf-run/agent/internal/wire"
)

// startSecure runs a TLS mux on loopback until the test ends. What it refuses is sent on the channel.
func startSecure(t *testing.T, keys *pki.Keys) (*wire.Mux, <-chan error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refused := make(chan error, 1024)
	mux := wire.NewTLSMux(l, keys, func(_ net.Addr, err error) {
		select {
		case refused <- err:
		default:
		}
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- mux.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return mux, refused
}

// serveAll serves every service there is, without doing anything: whoever is let in is told Unimplemented.
func serveAll(t *testing.T, l net.Listener) *grpc.Server {
	t.Helper()
	g := grpc.NewServer(wire.ServerOptions()...)
	wire.RegisterServersServer(g, wire.UnimplementedServersServer{})
	wire.RegisterNodesServer(g, wire.UnimplementedNodesServer{})
	wire.RegisterAgentsServer(g, wire.UnimplementedAgentsServer{})
	wire.RegisterPeersServer(g, wire.UnimplementedPeersServer{})
	served := make(chan error, 1)
	go func() { served <- g.Serve(l) }()
	t.Cleanup(func() { g.Stop(); <-served })
	return g
}

// call makes a call without a message of its own and gives the answer's code.
func call(t *testing.T, conn *grpc.ClientConn, method string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	st, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method)
	if err != nil {
		return err
	}
	if err := st.SendMsg(&emptypb.Empty{}); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if err := st.CloseSend(); err != nil {
		return err
	}
	return st.RecvMsg(&emptypb.Empty{})
}

// with shows certificates that no Dialer would, and trusts whoever is there.
func with(certs ...tls.Certificate) func(string) (*grpc.ClientConn, error) {
	return func(address string) (*grpc.ClientConn, error) {
		conf := &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true, Certificates: certs}
		return grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(credentials.NewTLS(conf)))
	}
}

// TestEveryMethodRefusesTheWrongCaller enumerates the methods from the services' descriptions.
func TestEveryMethodRefusesTheWrongCaller(t *testing.T) {
	a, foreign := pkitest.New(t), pkitest.New(t)
	mux, _ := startSecure(t, a.Keys(pki.Server, "eu", "s1"))
	g := serveAll(t, mux.GRPC())

	// What a client's certificate may call. Whether it does so for its own node is for the method.
	clients := map[string]bool{}
	for _, m := range []string{
		"Servers/Register", "Servers/Session", "Servers/PutManifest", "Servers/ReadManifest", "Servers/ReadOutputs", "Servers/SealResult", "Servers/ReadSecrets",
		"Nodes/ReadRecords", "Nodes/ReadFile", "Nodes/ReadResult",
	} {
		clients["/sheaf.wire.v1."+m] = true
	}
	now := time.Now()
	client := pki.Identity{Role: pki.Client, Region: "eu", Name: "c1"}
	server := pki.Identity{Role: pki.Server, Region: "eu", Name: "s2"}
	never, always := func(string) bool { return false }, func(string) bool { return true }
	for _, c := range []struct {
		name    string
		dial    func(string) (*grpc.ClientConn, error)
		may     func(method string) bool
		refusal codes.Code
	}{
		{"a server", wire.Dialer{Keys: a.Keys(pki.Server, "eu", "s2")}.Server, always, codes.OK},
		{"a client", wire.Dialer{Keys: a.Keys(pki.Client, "eu", "c1")}.Server, func(m string) bool { return clients[m] }, codes.PermissionDenied},
		{"a person", with(a.Certificate(pki.Identity{Role: pki.CLI, Region: "eu", Name: "jane"}, now)), never, codes.PermissionDenied},
		{"nobody", with(), never, codes.Unavailable},
		{"plain text", wire.Dialer{}.Server, never, codes.Unavailable},
		{"a server of another region", with(a.Certificate(pki.Identity{Role: pki.Server, Region: "us", Name: "s2"}, now)), never, codes.Unavailable},
		{"a server of another cluster", with(foreign.Certificate(server, now)), never, codes.Unavailable},
		{"a server that has expired", with(a.Certificate(server, now.AddDate(-2, 0, 0))), never, codes.Unavailable},
		{"a client that has expired", with(a.Certificate(client, now.AddDate(-2, 0, 0))), never, codes.Unavailable},
	} {
		conn, err := c.dial(mux.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		seen := 0
		services := wire.File_wire_proto.Services()
		for i := range services.Len() {
			s := services.Get(i)
			if _, ok := g.GetServiceInfo()[string(s.FullName())]; !ok {
				t.Fatalf("service %s is not served here: add it to serveAll", s.FullName())
			}
			for j := range s.Methods().Len() {
				seen++
				method := "/" + string(s.FullName()) + "/" + string(s.Methods().Get(j).Name())
				want := codes.Unimplemented
				if !c.may(method) {
					want = c.refusal
				}
				if err := call(t, conn, method); status.Code(err) != want {
					t.Errorf("%s calls %s: %v; want %v", c.name, method, err, want)
				}
			}
		}
		conn.Close()
		if seen < 14 {
			t.Fatalf("saw only %d methods", seen)
		}
	}
}

// Where there are no certificates there is nobody to tell apart, but a method still needs its row.
func TestPlainTextLetsEverybodyCall(t *testing.T) {
	mux := startMux(t)
	serveAll(t, mux.GRPC())
	conn, err := wire.Dialer{}.Server(mux.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	services := wire.File_wire_proto.Services()
	for i := range services.Len() {
		for j := range services.Get(i).Methods().Len() {
			method := "/" + string(services.Get(i).FullName()) + "/" + string(services.Get(i).Methods().Get(j).Name())
			if err := call(t, conn, method); status.Code(err) != codes.Unimplemented {
				t.Errorf("%s: %v", method, err)
			}
		}
	}
}

// TestMethodWithoutRow: nobody may call what the table does not have.
func TestMethodWithoutRow(t *testing.T) {
	mux := startMux(t)
	g := grpc.NewServer(wire.ServerOptions()...)
	handled := false
	g.RegisterService(&grpc.ServiceDesc{ServiceName: "new.Service", HandlerType: (*any)(nil), Streams: []grpc.StreamDesc{{
		StreamName: "Do", ServerStreams: true, Handler: func(any, grpc.ServerStream) error { handled = true; return nil },
	}}}, struct{}{})
	served := make(chan error, 1)
	go func() { served <- g.Serve(mux.GRPC()) }()
	t.Cleanup(func() { g.Stop(); <-served })
	conn, err := wire.Dialer{}.Server(mux.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := call(t, conn, "/new.Service/Do"); status.Code(err) != codes.PermissionDenied || handled {
		t.Errorf("a method without a row: %v, handled: %v", err, handled)
	}
}

func TestPeerOf(t *testing.T) {
	a := pkitest.New(t)
	mux, _ := startSecure(t, a.Keys(pki.Server, "eu", "s1"))
	var caller pki.Identity
	var known bool
	g := grpc.NewServer(append(wire.ServerOptions(), grpc.ChainUnaryInterceptor(func(ctx context.Context, _ any, _ *grpc.UnaryServerInfo, _ grpc.UnaryHandler) (any, error) {
		caller, known = wire.PeerOf(ctx)
		return &wire.RegisterResponse{}, nil
	}))...)
	wire.RegisterServersServer(g, wire.UnimplementedServersServer{})
	served := make(chan error, 1)
	go func() { served <- g.Serve(mux.GRPC()) }()
	t.Cleanup(func() { g.Stop(); <-served })
	conn, err := wire.Dialer{Keys: a.Keys(pki.Client, "eu", "c1")}.Server(mux.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := wire.NewServersClient(conn).Register(t.Context(), &wire.RegisterRequest{}); err != nil {
		t.Fatal(err)
	}
	if want := (pki.Identity{Role: pki.Client, Region: "eu", Name: "c1"}); !known || caller != want {
		t.Errorf("the caller is %v, %v; want %v", caller, known, want)
	}
	if _, known := wire.PeerOf(t.Context()); known {
		t.Error("somebody is known where there is no call")
	}
}

// A dialer sends nothing to whom it did not mean.
func TestDialersInsistOnTheirPeer(t *testing.T) {
	a, foreign := pkitest.New(t), pkitest.New(t)
	dialer := wire.Dialer{Keys: a.Keys(pki.Client, "eu", "c1")}
	for _, c := range []struct {
		name string
		keys *pki.Keys
		dial func(string) (*grpc.ClientConn, error)
		good bool
	}{
		{"server", a.Keys(pki.Server, "eu", "s1"), dialer.Server, true},
		{"client for server", a.Keys(pki.Client, "eu", "c2"), dialer.Server, false},
		{"server of another region", a.Keys(pki.Server, "us", "s1"), dialer.Server, false},
		{"server of another cluster", foreign.Keys(pki.Server, "eu", "s1"), dialer.Server, false},
		{"node by name", a.Keys(pki.Client, "eu", "c2"), func(s string) (*grpc.ClientConn, error) { return dialer.Node(s, "c2") }, true},
		{"any node", a.Keys(pki.Server, "eu", "c2"), func(s string) (*grpc.ClientConn, error) { return dialer.Node(s, "") }, true},
		{"node of another name", a.Keys(pki.Client, "eu", "c3"), func(s string) (*grpc.ClientConn, error) { return dialer.Node(s, "c2") }, false},
	} {
		mux, _ := startSecure(t, c.keys)
		serveAll(t, mux.GRPC())
		conn, err := c.dial(mux.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		want := codes.Unavailable
		if c.good {
			want = codes.Unimplemented
		}
		if err := call(t, conn, wire.Servers_Register_FullMethodName); status.Code(err) != want {
			t.Errorf("%s: %v; want %v", c.name, err, want)
		}
		conn.Close()
	}
}

// HTTPS to the leader carries tokens: nobody but a server gets them.
func TestServerTLSInsistsOnAServer(t *testing.T) {
	a := pkitest.New(t)
	dialer := wire.Dialer{Keys: a.Keys(pki.Client, "eu", "c1")}
	if (wire.Dialer{}).ServerTLS() != nil {
		t.Error("plain text has TLS")
	}
	for _, c := range []struct {
		keys *pki.Keys
		good bool
	}{
		{a.Keys(pki.Server, "eu", "s1"), true}, {a.Keys(pki.Client, "eu", "c2"), false}, {a.Keys(pki.Server, "us", "s1"), false}, {pkitest.New(t).Keys(pki.Server, "eu", "s1"), false},
	} {
		l, err := tls.Listen("tcp", "127.0.0.1:0", wire.AcceptHTTPS(c.keys, false))
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			if conn, err := l.Accept(); err == nil {
				_ = conn.(*tls.Conn).Handshake()
				conn.Close()
			}
		}()
		conn, err := tls.Dial("tcp", l.Addr().String(), dialer.ServerTLS())
		if (err == nil) != c.good {
			t.Errorf("HTTPS to %s: %v", c.keys.Identity(), err)
		}
		if err == nil {
			conn.Close()
		}
		<-done
		l.Close()
	}
}

func TestOnlyServersSpeakRaft(t *testing.T) {
	a := pkitest.New(t)
	mux, refused := startSecure(t, a.Keys(pki.Server, "eu", "s1"))
	address := mux.Addr().String()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()

	// The handshake of TLS 1.3 ends at the dialer before the server has seen its certificate.
	if conn, err := (wire.Dialer{Keys: a.Keys(pki.Client, "eu", "c1")}).Raft(ctx, address); err == nil {
		if _, err := conn.Read(make([]byte, 1)); err == nil {
			t.Error("a client was answered by raft")
		}
		conn.Close()
	}
	select {
	case err := <-refused:
		if !strings.Contains(err.Error(), "only servers speak raft") {
			t.Errorf("refused with %v", err)
		}
	case <-ctx.Done():
		t.Fatal("the client was not refused")
	}
	if _, err := (wire.Dialer{Keys: a.Keys(pki.Server, "us", "s9")}).Raft(ctx, address); err == nil {
		t.Error("a server dialled the raft of another region")
	}

	conn, err := wire.Dialer{Keys: a.Keys(pki.Server, "eu", "s2")}.Raft(ctx, address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("xy")); err != nil {
		t.Fatal(err)
	}
	accepted, err := mux.Raft().Accept() // the first that was let in
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	got := make([]byte, 2)
	if _, err := io.ReadFull(accepted, got); err != nil || string(got) != "xy" {
		t.Errorf("raft read %q, %v", got, err)
	}
}

// What is no TLS is closed, and so is a handshake whose bytes come one by one.
func TestSecureMuxClosesStrangers(t *testing.T) {
	a := pkitest.New(t)
	mux, _ := startSecure(t, a.Keys(pki.Server, "eu", "s1"))
	for name, text := range map[string]string{
		"HTTP/1":           "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
		"HTTP/2 in plain":  "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		"raft in plain":    "R\x01raft",
		"garbage":          strings.Repeat("\xff\x00", 512),
		"TLS 1.0's record": "\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00",
	} {
		c := dial(t, mux)
		if _, err := c.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
		// An alert may come, and then the end.
		if _, err := io.Copy(io.Discard, c); err != nil && !isReset(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	old := &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12, Certificates: []tls.Certificate{a.Certificate(pki.Identity{Role: pki.Server, Region: "eu", Name: "s2"}, time.Now())}, NextProtos: []string{"h2"}}
	if c, err := tls.Dial("tcp", mux.Addr().String(), old); err == nil {
		c.Close()
		t.Error("TLS 1.2 was spoken")
	}

	c := dial(t, mux)
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		_, _ = io.Copy(io.Discard, c)
	}()
	// The head of a record of 16 KiB, whose body comes slowly.
	next := []byte{0x16, 3, 1, 0x3f, 0xff}
	drip := time.NewTicker(100 * time.Millisecond)
	defer drip.Stop()
	deadline := time.After(time.Minute)
	for {
		select {
		case <-closed:
			return
		case <-deadline:
			t.Fatal("a handshake that is dribbled goes on for ever")
		case <-drip.C:
			_, _ = c.Write(next) // fails once the connection is closed
			next = []byte{1}
		}
	}
}

func isReset(err error) bool {
	var op *net.OpError
	return errors.As(err, &op)
}

// Reloaded keys count for the next connection, without a restart.
func TestReloadedKeysCount(t *testing.T) {
	a := pkitest.New(t)
	id := pki.Identity{Role: pki.Server, Region: "eu", Name: "s1"}
	keys, err := pki.LoadKeys(a.Files(id))
	if err != nil {
		t.Fatal(err)
	}
	mux, _ := startSecure(t, keys)
	serial := func() string {
		conf := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}, Certificates: []tls.Certificate{a.Certificate(id, time.Now())}}
		c, err := tls.Dial("tcp", mux.Addr().String(), conf)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	before := serial()
	a.Files(id) // writes new ones
	if changed, err := keys.Reload(); !changed || err != nil {
		t.Fatalf("reload: %v, %v", changed, err)
	}
	if serial() == before {
		t.Error("the old certificate is shown")
	}
}
