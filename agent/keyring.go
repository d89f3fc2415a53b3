package agent

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sheaf-run/agent/api"
	"github.com/sheaf-run/agent/internal/gossip"
	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/sheaf"
)

const (
	// keyringAtOnce is how many agents are asked at a time: a thousand are through in seconds,
	// and no more connections than that are opened for it.
	keyringAtOnce = 32
	// keyringTimeout bounds one agent's answer, so that one that hangs holds up no more than this.
	keyringTimeout = 5 * time.Second
)

// listKeys is the operation that changes nothing.
const listKeys = "list"

// keyringChanges are what an agent does to its own keyring.
var keyringChanges = map[string]func(*gossip.Pool, *wire.KeyringRequest) error{
	listKeys: func(*gossip.Pool, *wire.KeyringRequest) error { return nil },
	api.KeyInstall: func(p *gossip.Pool, r *wire.KeyringRequest) error {
		key, err := gossip.ParseKey(r.Key)
		if err != nil {
			return err
		}
		return p.InstallKey(key)
	},
	api.KeyUse:    func(p *gossip.Pool, r *wire.KeyringRequest) error { return p.UseKey(r.Id) },
	api.KeyRemove: func(p *gossip.Pool, r *wire.KeyringRequest) error { return p.RemoveKey(r.Id) },
}

// agents is the service that servers ask of every agent.
type agents struct {
	wire.UnimplementedAgentsServer
	pool *gossip.Pool
}

// Keyring implements the service.
func (s agents) Keyring(_ context.Context, r *wire.KeyringRequest) (*wire.KeyringResponse, error) {
	change, ok := keyringChanges[r.Operation]
	if !ok {
		return nil, status.Errorf(codes.InvalidArgument, "the keyring knows no operation %q", r.Operation)
	}
	if err := change(s.pool, r); err != nil {
		return nil, status.Error(codes.FailedPrecondition, err.Error())
	}
	ids, primary := s.pool.KeyIDs()
	return &wire.KeyringResponse{Ids: ids, Primary: primary}, nil
}

// keyring asks all agents that gossip knows, nil for a list, and says how it went.
func (a *Agent) keyring(ctx context.Context, change *api.KeyringChange) (api.Keyring, error) {
	request, err := keyringRequest(change)
	if err != nil {
		return api.Keyring{}, err
	}
	if _, primary := a.pool.KeyIDs(); primary == "" {
		return api.Keyring{}, &sheaf.Error{Class: sheaf.Conflict, Msg: "gossip is not encrypted, so that there are no keys", Hint: "set gossip { key } in the configuration of every agent and restart them"}
	}
	if request.Operation == api.KeyUse {
		// Who lacks the key would be cut off by those who begin to use it.
		report := a.askKeyring(ctx, &wire.KeyringRequest{Operation: listKeys})
		has := 0
		for _, k := range report.Keys {
			if k.ID == request.Id {
				has = k.Installed
			}
		}
		if has < report.Answered || has == 0 {
			return report, &sheaf.Error{
				Class: sheaf.Conflict, Field: "key", Msg: fmt.Sprintf("key %s is installed on %d of %d agents, and the others would be cut off", request.Id, has, report.Members),
				Hint: "install it first: agent operator keyring install KEY",
			}
		}
	}
	return a.askKeyring(ctx, request), nil
}

func keyringRequest(change *api.KeyringChange) (*wire.KeyringRequest, error) {
	if change == nil {
		return &wire.KeyringRequest{Operation: listKeys}, nil
	}
	r := &wire.KeyringRequest{Operation: change.Operation}
	if _, ok := keyringChanges[change.Operation]; !ok || change.Operation == listKeys {
		return nil, &sheaf.Error{Class: sheaf.Invalid, Field: "operation", Msg: fmt.Sprintf("operation %q is unknown", change.Operation), Hint: "known: install, use, remove"}
	}
	key, err := gossip.ParseKey(change.Key)
	switch {
	case err == nil && change.Operation == api.KeyInstall:
		r.Key = change.Key
	case err == nil:
		r.Id = gossip.KeyID(key)
	case change.Operation != api.KeyInstall && gossip.IsKeyID(change.Key):
		r.Id = change.Key
	default:
		return nil, &sheaf.Error{Class: sheaf.Invalid, Field: "key", Msg: "this is no gossip key", Err: err, Hint: "`agent gossip keygen` prints one; to use or remove one its ID will do"}
	}
	return r, nil
}

// askKeyring has every agent do the same and counts the answers.
func (a *Agent) askKeyring(ctx context.Context, request *wire.KeyringRequest) api.Keyring {
	members := a.pool.Members()
	report := api.Keyring{Members: len(members), Keys: []api.GossipKey{}}
	keys := map[string]*api.GossipKey{}
	key := func(id string) *api.GossipKey {
		if keys[id] == nil {
			keys[id] = &api.GossipKey{ID: id}
		}
		return keys[id]
	}
	var mu sync.Mutex
	var g errgroup.Group
	g.SetLimit(keyringAtOnce)
	for _, m := range members {
		g.Go(func() error {
			answer, err := a.askMember(ctx, m, request)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				report.Failed = append(report.Failed, api.KeyringFailure{Member: m.Name, Error: status.Convert(err).Message()})
				return nil
			}
			report.Answered++
			for _, id := range answer.Ids {
				key(id).Installed++
			}
			if answer.Primary != "" {
				key(answer.Primary).Primary++
			}
			return nil
		})
	}
	_ = g.Wait() // they return none
	for _, k := range keys {
		report.Keys = append(report.Keys, *k)
	}
	slices.SortFunc(report.Keys, func(a, b api.GossipKey) int {
		return cmp.Or(cmp.Compare(b.Primary, a.Primary), strings.Compare(a.ID, b.ID))
	})
	slices.SortFunc(report.Failed, func(a, b api.KeyringFailure) int { return strings.Compare(a.Member, b.Member) })
	return report
}

func (a *Agent) askMember(ctx context.Context, m gossip.Member, request *wire.KeyringRequest) (*wire.KeyringResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, keyringTimeout)
	defer cancel()
	if m.Name == a.conf.Name {
		return agents{pool: a.pool}.Keyring(ctx, request)
	}
	conn, err := a.dialer.Node(m.Address, m.Name)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return wire.NewAgentsClient(conn).Keyring(ctx, request)
}
