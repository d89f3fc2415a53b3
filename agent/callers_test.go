package agent

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/sheaf-run/agent/api"
	"github.com/sheaf-run/agent/internal/gossip"
	"github.com/sheaf-run/agent/internal/pki"
	"github.com/sheaf-run/agent/internal/pki/pkitest"
	"github.com/sheaf-run/agent/internal/wire"
)

// worst is the most that a client with a good certificate could try to get by a method that clients may call: to
// speak for the node called c1, or to read what it has no token for. What has no entry is tried without a message.
func worst(victim string) map[string]proto.Message {
	node := fmt.Appendf(nil, `{"id":%q,"name":"c1","region":"eu"}`, victim)
	return map[string]proto.Message{
		wire.Servers_Register_FullMethodName:    &wire.RegisterRequest{NodeJson: node, BootId: "b"},
		wire.Servers_Session_FullMethodName:     &wire.FromClient{Body: &wire.FromClient_Hello{Hello: &wire.Hello{Node: victim, Session: 1, BootId: "b"}}},
		wire.Servers_PutManifest_FullMethodName: &wire.PutManifestRequest{Body: &wire.PutManifestRequest_Seal{Seal: &wire.ManifestSeal{Run: "r", Node: victim, Session: 1, SplitAttempt: 1}}},
		wire.Servers_ReadManifest_FullMethodName: &wire.ReadManifestRequest{
			Run: "r", SplitAttempt: 1, Count: 1,
		},
		wire.Servers_ReadOutputs_FullMethodName: &wire.ReadOutputsRequest{Run: "r", Generation: 1, MergeAttempt: 1, Node: victim},
		wire.Servers_SealResult_FullMethodName:  &wire.SealResultRequest{Run: "r", Generation: 1, MergeAttempt: 1, Node: victim, Session: 1, Digest: make([]byte, 32)},
		wire.Servers_ReadSecrets_FullMethodName: &wire.ReadSecretsRequest{Run: "r", Node: victim, Session: 1},
		wire.Nodes_ReadRecords_FullMethodName:   &wire.ReadRecordsRequest{Run: "r", First: []uint32{0}, Count: []uint32{1}, Attempt: []uint32{1}},
		wire.Nodes_ReadFile_FullMethodName:      &wire.ReadFileRequest{Run: "r", Attempt: 1, Output: "out", Path: []byte("a")},
		wire.Nodes_ReadResult_FullMethodName:    &wire.ReadResultRequest{Run: "r", MergeAttempt: 1},
	}
}

// invoke calls a method with one message and gives what it ends with.
func invoke(t *testing.T, conn *grpc.ClientConn, method string, m proto.Message) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	st, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method)
	if err != nil {
		return err
	}
	if err := st.SendMsg(m); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if err := st.CloseSend(); err != nil {
		return err
	}
	for {
		if err := st.RecvMsg(&emptypb.Empty{}); err != nil {
			return err
		}
	}
}

// showing dials with these certificates and trusts whoever is there.
func showing(certs ...tls.Certificate) func(string) (*grpc.ClientConn, error) {
	return func(address string) (*grpc.ClientConn, error) {
		conf := &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true, Certificates: certs}
		return grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(credentials.NewTLS(conf)))
	}
}

// TestEveryMethodOfAnAgent asks what a server and a client serve, whatever that is, and calls all of it as whom it is not for.
// Each method refuses everybody but a server, and a client that asks for what is not its own.
func TestEveryMethodOfAnAgent(t *testing.T) {
	authority, foreign := pkitest.New(t), pkitest.New(t)
	key := gossip.NewKey()
	server := begin(t, secured(authority, pki.Server, "s1", key))
	client := begin(t, secured(authority, pki.Client, "c1", key, server.pool.Address()))
	victim := string(client.clients[0].ID())
	messages := worst(victim)

	now := time.Now()
	person := pki.Identity{Role: pki.CLI, Region: "eu", Name: "jane"}
	stranger := pki.Identity{Role: pki.Server, Region: "us", Name: "s1"}
	peer := pki.Identity{Role: pki.Server, Region: "eu", Name: "s2"}
	callers := []struct {
		name    string
		dial    func(string) (*grpc.ClientConn, error)
		refusal codes.Code
	}{
		{"nobody", showing(), codes.Unavailable},
		{"plain text", wire.Dialer{}.Server, codes.Unavailable},
		{"a server of another region", showing(authority.Certificate(stranger, now)), codes.Unavailable},
		{"a server of another cluster", showing(foreign.Certificate(peer, now)), codes.Unavailable},
		{"a server whose certificate has ended", showing(authority.Certificate(peer, now.AddDate(-2, 0, 0))), codes.Unavailable},
		{"a person", showing(authority.Certificate(person, now)), codes.PermissionDenied},
		{"another client", showing(authority.Certificate(pki.Identity{Role: pki.Client, Region: "eu", Name: "thief"}, now)), codes.PermissionDenied},
	}
	seen := map[string]bool{}
	for _, a := range []*Agent{server, client} {
		for _, c := range callers {
			conn, err := c.dial(a.mux.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			for service, info := range a.grpc.GetServiceInfo() {
				for _, m := range info.Methods {
					method := "/" + service + "/" + m.Name
					seen[method] = true
					message := messages[method]
					if message == nil {
						message = &emptypb.Empty{}
					}
					if err := invoke(t, conn, method, message); status.Code(err) != c.refusal {
						t.Errorf("%s calls %s of %s: %v; want %v", c.name, method, a.conf.Name, err, c.refusal)
					}
				}
			}
			conn.Close()
		}
	}
	described := wire.File_wire_proto.Services()
	for i := range described.Len() {
		for j := range described.Get(i).Methods().Len() {
			if method := "/" + string(described.Get(i).FullName()) + "/" + string(described.Get(i).Methods().Get(j).Name()); !seen[method] {
				t.Errorf("%s is described, and was not tried: no agent here serves it", method)
			}
		}
	}
	for method := range messages {
		if !seen[method] {
			t.Errorf("%s is not served any more", method)
		}
	}
	if n := server.server.Snapshot().Node(client.clients[0].ID()); n == nil || n.Name != "c1" {
		t.Errorf("the node has become %+v", n)
	}
}

// TestEveryEndpointByCertificateAndToken takes the endpoints from the agent's own description, which is made of the
// table that it serves, and calls each without a certificate, with another region's, and with a good one but without a token.
func TestEveryEndpointByCertificateAndToken(t *testing.T) {
	authority := pkitest.New(t)
	conf := secured(authority, pki.Server, "s1", gossip.NewKey())
	conf.TLS.VerifyHTTPSClient, conf.ACL = true, &ACLConfig{Enabled: true}
	a := begin(t, conf)
	now := time.Now()
	jane := authority.Files(pki.Identity{Role: pki.CLI, Region: "eu", Name: "jane"})
	good, err := tls.LoadX509KeyPair(jane.Cert, jane.Key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := api.New(api.Config{Address: a.HTTPAddress(), CACert: authority.CA(), ClientCert: jane.Cert, ClientKey: jane.Key})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	raw, err := c.OpenAPI(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var described struct {
		Paths map[string]map[string]struct {
			Capability string `json:"x-sheaf-capability"`
		}
	}
	if err := json.Unmarshal(raw, &described); err != nil {
		t.Fatal(err)
	}
	try := func(certs []tls.Certificate, method, path string) (int, error) {
		transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, Certificates: certs}}
		defer transport.CloseIdleConnections()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, strings.ToUpper(method), a.HTTPAddress()+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := transport.RoundTrip(req)
		if err != nil {
			return 0, err
		}
		resp.Body.Close()
		return resp.StatusCode, nil
	}
	open := []string{}
	for path, methods := range described.Paths {
		for method, endpoint := range methods {
			at := method + " " + path
			filled := strings.NewReplacer("{n}", "0", "{", "", "}", "").Replace(path)
			for name, certs := range map[string][]tls.Certificate{
				"without a certificate":            nil,
				"with another region's":            {authority.Certificate(pki.Identity{Role: pki.CLI, Region: "us", Name: "jane"}, now)},
				"with a certificate that is ended": {authority.Certificate(pki.Identity{Role: pki.CLI, Region: "eu", Name: "jane"}, now.AddDate(-2, 0, 0))},
			} {
				if code, err := try(certs, method, filled); err == nil {
					t.Errorf("%s %s is answered %d", at, name, code)
				}
			}
			code, err := try([]tls.Certificate{good}, method, filled)
			if endpoint.Capability == "anyone" {
				if open = append(open, at); code == http.StatusUnauthorized || err != nil {
					t.Errorf("%s is for anyone, and answers %d, %v", at, code, err)
				}
			} else if code != http.StatusUnauthorized {
				t.Errorf("%s without a token: %d, %v", at, code, err)
			}
		}
	}
	slices.Sort(open)
	if want := []string{"get /livez", "get /readyz", "get /v1/acl/self", "get /v1/agent/health", "get /v1/openapi.json", "post /v1/acl/bootstrap"}; !slices.Equal(open, want) {
		t.Errorf("anyone may use %v; want %v", open, want)
	}
	if len(described.Paths) < 40 {
		t.Errorf("only %d paths are described", len(described.Paths))
	}
}
