package wire

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sheaf-run/agent/internal/pki"
)

// callers are the roles that may call a method.
type callers []pki.Role

var (
	servers = callers{pki.Server}
	// agents may all call; that a client speaks for its own node, or shows a token for
	// another's data, is checked by the method, which sees the message.
	agents = callers{pki.Server, pki.Client}
)

// methods says who may call what, for every method of every service there is. One without
// a row is refused, so that none can be added without deciding.
var methods = map[string]callers{
	Servers_Register_FullMethodName:     agents,
	Servers_Session_FullMethodName:      agents,
	Servers_PutManifest_FullMethodName:  agents,
	Servers_ReadManifest_FullMethodName: agents,
	Servers_ReadOutputs_FullMethodName:  agents,
	Servers_SealResult_FullMethodName:   agents,
	Servers_ReadSecrets_FullMethodName:  agents,

	Nodes_Preview_FullMethodName:     servers,
	Nodes_ReadLog_FullMethodName:     servers,
	Nodes_ReadRecords_FullMethodName: agents,
	Nodes_ReadFile_FullMethodName:    agents,
	Nodes_ReadResult_FullMethodName:  agents,

	Agents_Keyring_FullMethodName: servers,

	Peers_Stats_FullMethodName: servers,
	Peers_Leave_FullMethodName: servers,
}

// authorize refuses callers whose role may not call the method. In plain text nobody
// is known, and whoever reaches the port may call: the agent lets that be on loopback only, or by "insecure".
func authorize(ctx context.Context, method string) error {
	allowed, ok := methods[method]
	if !ok {
		return status.Errorf(codes.PermissionDenied, "nobody may call %s: it has no row in the table of methods", method)
	}
	caller, secured := PeerOf(ctx)
	if !secured {
		return nil
	}
	for _, role := range allowed {
		if caller.Role == role {
			return nil
		}
	}
	return status.Errorf(codes.PermissionDenied, "%s may not call %s: its certificate is a %s's", caller, method, caller.Role)
}

func authorizeCall(ctx context.Context, req any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	if err := authorize(ctx, info.FullMethod); err != nil {
		return nil, err
	}
	return handle(ctx, req)
}

func authorizeStream(srv any, st grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
	if err := authorize(st.Context(), info.FullMethod); err != nil {
		return err
	}
	return handle(srv, st)
}
