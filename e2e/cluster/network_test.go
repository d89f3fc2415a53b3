package cluster

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
)

// prefix begins the names of all namespaces and cgroups of these tests; the test's process and the
// cluster's number follow, so that runs do not meet and the next one knows what a killed one left.
const prefix = "sheaf-"

// networks counts the clusters of this process.
var networks atomic.Int32

// network is a bridge in a namespace of its own. The host has an address on it, and each
// agent a namespace with one.
type network struct {
	t      *current
	name   string
	subnet string // first three numbers
	device string // the host's end
}

// namespace is an agent's place in the network.
type namespace struct {
	t       *current
	name    string
	address string
	host    string // whose packets no cut holds up: the test's own
}

func newNetwork(t *current) *network {
	t.Helper()
	number := networks.Add(1)
	n := &network{t: t, name: fmt.Sprintf("%s%d-%d", prefix, os.Getpid(), number), device: fmt.Sprintf("shf%d-%d", os.Getpid(), number)}
	n.subnet = claimSubnet(t)
	t.Cleanup(func() {
		ip(t, "netns", "del", n.name)
		_ = exec.Command("ip", "link", "del", n.device).Run() // it went with its other end, soon or late
	})
	ip(t, "netns", "add", n.name)
	ip(t, "-n", n.name, "link", "add", "bridge", "type", "bridge")
	ip(t, "-n", n.name, "link", "set", "bridge", "up")
	ip(t, "link", "add", n.device, "type", "veth", "peer", "name", "host", "netns", n.name)
	ip(t, "-n", n.name, "link", "set", "host", "master", "bridge", "up")
	ip(t, "addr", "add", n.subnet+".1/24", "dev", n.device)
	ip(t, "link", "set", n.device, "up")
	return n
}

// claimSubnet picks one of the networks that are set apart for benchmarks (RFC 2544). A socket, which ends with the
// test or its process, keeps clusters that begin at the same moment from picking the same.
func claimSubnet(t testing.TB) string {
	t.Helper()
	for {
		subnet := fmt.Sprintf("198.%d.%d", 18+rand.IntN(2), rand.IntN(256))
		claim, err := net.Listen("unix", "@"+prefix+subnet)
		if errors.Is(err, syscall.EADDRINUSE) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if !addressed(t, subnet) {
			t.Cleanup(func() { claim.Close() })
			return subnet
		}
		claim.Close()
	}
}

// addressed reports whether this machine has an address in the subnet already.
func addressed(t testing.TB, subnet string) bool {
	t.Helper()
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(addresses, func(a net.Addr) bool { return strings.HasPrefix(a.String(), subnet+".") })
}

// attach makes a namespace with the address number on the bridge.
func (n *network) attach(name string, number int) *namespace {
	n.t.Helper()
	ns := &namespace{t: n.t, name: n.name + "-" + name, address: n.subnet + "." + strconv.Itoa(number), host: n.subnet + ".1"}
	n.t.Cleanup(func() { ip(n.t, "netns", "del", ns.name) })
	ip(n.t, "netns", "add", ns.name)
	ip(n.t, "link", "add", "eth0", "netns", ns.name, "type", "veth", "peer", "name", name, "netns", n.name)
	ip(n.t, "-n", n.name, "link", "set", name, "master", "bridge", "up")
	ip(n.t, "-n", ns.name, "link", "set", "lo", "up")
	ip(n.t, "-n", ns.name, "addr", "add", ns.address+"/24", "dev", "eth0")
	ip(n.t, "-n", ns.name, "link", "set", "eth0", "up")
	return ns
}

// direction is which way packets go, seen from the agent.
type direction string

const (
	inbound  direction = "input"
	outbound direction = "output"
)

// cut drops what goes one way between this agent and all others.
func (ns *namespace) cut(way direction) {
	ns.t.Helper()
	field := map[direction]string{inbound: "saddr", outbound: "daddr"}[way]
	ns.rules(way, fmt.Sprintf("ip %s %s accept; ip %s %s.0/24 counter drop", field, ns.host, field, ns.host[:strings.LastIndexByte(ns.host, '.')]))
}

// lose drops a share of what comes in on a port, at random.
func (ns *namespace) lose(percent, port int) {
	ns.t.Helper()
	// A packet between two gossipers bears the port twice, and is drawn for once.
	ns.rules(inbound, fmt.Sprintf("th dport != %d th sport != %d accept; numgen random mod 100 < %d counter drop", port, port, percent))
}

// rules puts rules, apart by semicolons, on the packets of a way.
func (ns *namespace) rules(way direction, rules string) {
	ns.t.Helper()
	text := fmt.Sprintf("table inet sheaf_%s {\n chain c {\n type filter hook %s priority 0\n %s\n }\n}\n", way, way, strings.ReplaceAll(rules, "; ", "\n "))
	nft := exec.Command("ip", "netns", "exec", ns.name, "nft", "-f", "-")
	nft.Stdin = strings.NewReader(text)
	if out, err := nft.CombinedOutput(); err != nil {
		ns.t.Fatalf("nft in %s: %v\n%s%s", ns.name, err, text, out)
	}
}

// dropped is how many packets the counters of the rules have seen.
func (ns *namespace) dropped() (n int) {
	ns.t.Helper()
	out, err := exec.Command("ip", "netns", "exec", ns.name, "nft", "list", "ruleset").CombinedOutput()
	if err != nil {
		ns.t.Fatalf("nft in %s: %v\n%s", ns.name, err, out)
	}
	fields := strings.Fields(string(out))
	for i, f := range fields {
		if f == "packets" {
			v, _ := strconv.Atoi(fields[i+1])
			n += v
		}
	}
	return n
}

// heal takes all rules away.
func (ns *namespace) heal() {
	ns.t.Helper()
	if out, err := exec.Command("ip", "netns", "exec", ns.name, "nft", "flush", "ruleset").CombinedOutput(); err != nil {
		ns.t.Fatalf("nft in %s: %v\n%s", ns.name, err, out)
	}
}

func ip(t testing.TB, args ...string) {
	t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		t.Errorf("ip %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// netns is where ip(8) keeps named namespaces.
const netns = "/run/netns"

// made lists the namespaces and cgroups that are ours, with the process that made each.
func made() map[string]int {
	all := map[string]int{}
	for _, dir := range []string{netns, cgroups} {
		paths, _ := filepath.Glob(filepath.Join(dir, prefix+"[0-9]*"))
		for _, p := range paths {
			text, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(p), prefix), "-")
			if pid, err := strconv.Atoi(text); err == nil {
				all[p] = pid
			}
		}
	}
	return all
}

// leftovers is what this process made and has not removed.
func leftovers() (left []string) {
	for path, pid := range made() {
		if pid == os.Getpid() {
			left = append(left, path)
		}
	}
	return left
}

// sweep removes what a process left that was killed before it could. This one has made nothing yet: what bears its
// number is an earlier one's.
func sweep() error {
	var errs []error
	for _, kind := range []struct {
		dir    string
		remove func(path string) error
	}{{cgroups, removeGroup}, {netns, removeNamespace}} {
		for path, pid := range made() {
			if filepath.Dir(path) == kind.dir && (pid == os.Getpid() || errors.Is(syscall.Kill(pid, 0), syscall.ESRCH)) {
				errs = append(errs, kind.remove(path))
			}
		}
	}
	return errors.Join(errs...)
}

// removeNamespace removes a namespace. Another process may sweep too, and be the first.
func removeNamespace(path string) error {
	out, err := exec.Command("ip", "netns", "del", filepath.Base(path)).CombinedOutput()
	if _, gone := os.Stat(path); err != nil && !errors.Is(gone, os.ErrNotExist) {
		return fmt.Errorf("remove namespace %s: %w\n%s", path, err, out)
	}
	return nil
}
