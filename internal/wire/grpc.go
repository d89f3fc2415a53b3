package wire

import (
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
)

const (
	// MaxMessage bounds one gRPC message. The largest are a RunSpec with its
	// job (1 MiB) and a Hello that lists what a client kept over a long absence.
	MaxMessage = 8 << 20
	// maxStreams bounds the concurrent calls on one connection.
	maxStreams = 1024
	// maxHeaderBytes bounds the header list of a call; ours have a handful.
	maxHeaderBytes = 16 << 10
	// flowWindow is HTTP/2's window for a stream and for a connection: enough
	// for full speed on a LAN, and the bound on what a slow reader makes us buffer.
	flowWindow = 1 << 20
	// keepaliveTime is how long a silent connection is trusted before it is probed,
	// keepaliveTimeout how long the probe may take: together they
	// find a dead peer before its lease of 10 s and grace run out.
	keepaliveTime    = 10 * time.Second
	keepaliveTimeout = 5 * time.Second
	// keepaliveMin is the fastest probing that a server lets a client do.
	keepaliveMin = 5 * time.Second
	// handshakeTimeout bounds the setting up of a connection.
	handshakeTimeout = 5 * time.Second
)

// ServerOptions are the settings of every gRPC server of ours. It stands behind a [Mux], which
// does the handshakes; [PeerOf] says whom they found, and the table of methods who may call what.
func ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.Creds(handedOver{insecure.NewCredentials()}),
		grpc.ChainUnaryInterceptor(authorizeCall),
		grpc.ChainStreamInterceptor(authorizeStream),
		grpc.MaxRecvMsgSize(MaxMessage),
		grpc.MaxSendMsgSize(MaxMessage),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.MaxHeaderListSize(maxHeaderBytes),
		grpc.InitialWindowSize(flowWindow),
		grpc.InitialConnWindowSize(flowWindow),
		grpc.ConnectionTimeout(handshakeTimeout),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: keepaliveTime, Timeout: keepaliveTimeout}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: keepaliveMin, PermitWithoutStream: true}),
	}
}

// dial makes a connection that is opened by its first call.
func dial(address string, creds credentials.TransportCredentials) (*grpc.ClientConn, error) {
	conn, err := grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(creds),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(MaxMessage), grpc.MaxCallSendMsgSize(MaxMessage)),
		grpc.WithInitialWindowSize(flowWindow),
		grpc.WithInitialConnWindowSize(flowWindow),
		grpc.WithMaxHeaderListSize(maxHeaderBytes),
		grpc.WithIdleTimeout(0),
		grpc.WithDisableServiceConfig(),
		grpc.WithNoProxy(),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveTime, Timeout: keepaliveTimeout, PermitWithoutStream: false}),
	)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", address, err)
	}
	return conn, nil
}
