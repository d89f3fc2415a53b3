package gossip

import (
	"context"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/hashicorp/memberlist"
)

const (
	// rejoinEvery is how often a member that was lost is looked for. Two parts of a pool that were
	// cut apart hold each other for dead and would stay so: nothing but this finds them again.
	rejoinEvery = 5 * time.Second
	// rejoinFor is how long a lost member is looked for: machines that are gone for longer
	// join by themselves when they are back.
	rejoinFor = 24 * time.Hour
)

// absence is where a member was that is held for dead, and since when.
type absence struct {
	address string
	since   time.Time
}

// miss notes that a member is gone without a farewell, or that it is not.
func (p *Pool) miss(name, address string, accounted bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if accounted {
		delete(p.lost, name)
		return
	}
	p.lost[name] = absence{address, time.Now()}
}

// keepJoining joins, with growing pauses until another member has answered, and then keeps
// looking for those who should be there and are not.
func (p *Pool) keepJoining(ctx context.Context, list *memberlist.Memberlist) error {
	if len(p.join) == 0 {
		close(p.tried)
	} else if err := p.joinAny(ctx, list); err != nil {
		return err
	}
	tick := time.NewTicker(rejoinEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		for _, address := range p.absent(ctx, p.Address()) {
			n, err := list.Join([]string{address})
			if n > 0 {
				p.log.Info("found a member of the gossip pool again", "address", address)
			} else {
				p.log.Debug("look for a member of the gossip pool", "address", address, "error", err)
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
		}
	}
}

// joinAny returns once there is another member. Its own address may stand among those to join: that
// this agent answers itself says nothing.
func (p *Pool) joinAny(ctx context.Context, list *memberlist.Memberlist) error {
	var once sync.Once
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval = joinFirst, joinMax
	own := p.Address()
	for {
		others := slices.DeleteFunc(slices.Clone(p.join), func(address string) bool { return address == own })
		if len(others) == 0 {
			once.Do(func() { close(p.tried) })
			return nil
		}
		n, err := list.Join(others)
		once.Do(func() { close(p.tried) })
		if n > 0 && list.NumMembers() > 1 {
			p.log.Info("joined the gossip pool", "contacted", n, "members", list.NumMembers())
			return nil
		}
		next := pause.NextBackOff()
		p.log.Warn("could not join the gossip pool: "+whyNotJoined(list.LocalNode().Name, err)+"; compare addresses, region and gossip key", "join", p.join, "retry", next, "error", err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(next):
		}
	}
}

// absent are the addresses to look at: those to join that no live member has, and one of the
// members that were lost.
func (p *Pool) absent(ctx context.Context, own string) []string {
	p.mu.Lock()
	there := map[string]bool{own: true}
	for _, m := range p.members {
		there[m.Gossip] = true
	}
	maps.DeleteFunc(p.lost, func(_ string, a absence) bool { return time.Since(a.since) > rejoinFor })
	names := slices.Collect(maps.Keys(p.lost))
	lost := ""
	if len(names) > 0 {
		lost = p.lost[names[rand.IntN(len(names))]].address
	}
	p.mu.Unlock()

	list := slices.DeleteFunc(slices.Clone(p.join), func(address string) bool { return present(ctx, address, there) })
	if lost != "" && !there[lost] && !slices.Contains(list, lost) {
		list = append(list, lost)
	}
	return list
}

// present reports whether an address, or one of those that its name stands for, is a live member's. What
// cannot be told counts as present: asking a member over and over moves the whole membership each time.
func present(ctx context.Context, address string, there map[string]bool) bool {
	host, port, err := net.SplitHostPort(address)
	if err != nil || there[address] {
		return true
	}
	if net.ParseIP(host) != nil {
		return false
	}
	ips, err := net.DefaultResolver.LookupHost(ctx, host)
	return err != nil || slices.ContainsFunc(ips, func(ip string) bool { return there[net.JoinHostPort(ip, port)] })
}
