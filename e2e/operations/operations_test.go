package operations

import (
	"crypto/tls"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// step is what the test adds to a section of the guide: what happens to the reader, and
// what must be so when the section has been gone through.
type step struct{ before, after func(*site) }

// TestGuide goes through the guide from nothing.
func TestGuide(t *testing.T) {
	tasks, headings := readGuide(t)
	steps := map[string]step{
		"Servers":                  {after: foundedByThree},
		"Clients":                  {after: strangersAreRefused},
		"A team and its first job": {after: ranOnBothClients},
		"Backup":                   {after: func(s *site) { s.run(desk, "agent namespace apply mistake") }},
		"Restore":                  {after: mistakeUndone},
		"Add a machine":            {after: func(s *site) { servers(s, "server-1", "server-2", "server-3", "server-4") }},
		"Take a server away":       {after: serverLeft},
		"Upgrade":                  {before: notePIDs, after: allReplaced},
		"New certificates":         {before: noteCertificates, after: newCertificates},
		"A new gossip key":         {after: oneGossipKey},
		"A new key for secrets":    {after: secretsUseNewKey},
		"A new token":              {after: oldTokenIsRefused},
		"A damaged store":          {before: damage, after: func(s *site) { servers(s, "server-2", "server-3", "server-4") }},
		"Lost quorum":              {before: loseTwo, after: nothingWasLost},
		"All servers lost":         {before: loseAll, after: runsAreBack},
	}
	for section := range steps {
		if !slices.Contains(headings, section) {
			t.Fatalf("the guide has no section %q, which the test checks", section)
		}
	}
	s := newSite(t, []machine{
		{desk, "10.20.0.2"}, {"server-1", "10.20.0.11"}, {"server-2", "10.20.0.12"}, {"server-3", "10.20.0.13"}, {"server-4", "10.20.0.14"},
		{"client-1", "10.20.0.21"}, {"client-2", "10.20.0.22"},
	})
	checkout(s)
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(s.logs())
		}
	})
	for i, k := range tasks {
		began := time.Now()
		if i == 0 || tasks[i-1].section != k.section {
			if before := steps[k.section].before; before != nil {
				before(s)
			}
		}
		k.do(s)
		if i == len(tasks)-1 || tasks[i+1].section != k.section {
			if after := steps[k.section].after; after != nil {
				after(s)
			}
		}
		t.Logf("%q took %s", k.section, time.Since(began).Round(time.Millisecond))
	}
	stopAll(s)
}

// checkout puts what `make build` leaves on the reader's machine.
func checkout(s *site) {
	s.t.Helper()
	for to, from := range map[string]string{
		"bin/agent": binary, "packaging/sheaf.service": "../../packaging/sheaf.service",
	} {
		b, err := os.ReadFile(from)
		if err != nil {
			s.t.Fatal(err)
		}
		s.write(desk+"/root/sheaf/"+to, string(b))
		if err := os.Chmod(s.path(desk+"/root/sheaf/"+to), 0o755); err != nil {
			s.t.Fatal(err)
		}
	}
}

// eventually runs a command on the reader's machine until it prints what is wanted.
func eventually(s *site, command string, good func(out string) bool) {
	s.t.Helper()
	last := ""
	if !within(patience, func() bool {
		out, err := s.try(desk, command)
		last = fmt.Sprint(out, err)
		return err == nil && good(strings.TrimSpace(out))
	}) {
		s.t.Fatalf("waited %s in vain; the last answer of\n%s\nwas\n%s", patience, command, last)
	}
}

// servers waits until these are the cluster's servers, as which they know themselves, and alive.
func servers(s *site, names ...string) {
	s.t.Helper()
	eventually(s, "agent operator raft list-peers -t '{{range .}}{{.id}} {{.name}} {{.alive}}\n{{end}}' | sort -k 2", func(out string) bool {
		want := ""
		for _, name := range names {
			id, err := os.ReadFile(s.path(name + "/var/lib/sheaf/server/id"))
			if err != nil {
				return false // it has only been started
			}
			want += strings.TrimSpace(string(id)) + " " + name + " true\n"
		}
		return out+"\n" == want
	})
}

func foundedByThree(s *site) {
	servers(s, "server-1", "server-2", "server-3")
	eventually(s, "agent operator raft list-peers -t '{{range .}}{{.voter}} {{end}}'", func(out string) bool { return out == "true true true" })
	if out, err := s.try(desk, "agent acl bootstrap"); err == nil {
		s.t.Errorf("the first token can be made twice: %s", out)
	}
	if out, err := s.try(desk, "HOME=/nowhere agent node list"); err == nil {
		s.t.Errorf("without a token nodes are listed: %s", out)
	}
}

// strangersAreRefused: RPC takes nobody without a certificate of the authority, on servers and clients.
func strangersAreRefused(s *site) {
	for _, address := range []string{"10.20.0.11:7611", "10.20.0.21:7611"} {
		conn, err := s.dial(address)
		if err != nil {
			s.t.Fatal(err)
		}
		stranger := tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
		_ = stranger.SetDeadline(time.Now().Add(patience))
		// TLS 1.3 tells of a certificate that is missing with the first read.
		if err = stranger.Handshake(); err == nil {
			_, err = stranger.Read(make([]byte, 1))
		}
		conn.Close()
		if err == nil || !strings.Contains(err.Error(), "certificate required") {
			s.t.Errorf("%s answers who shows no certificate: %v", address, err)
		}
	}
	if out, err := s.try(desk, "SHEAF_CACERT= agent node list"); err == nil || !strings.Contains(out, "certificate") {
		s.t.Errorf("HTTPS is taken without the authority: %v %s", err, out)
	}
}

func ranOnBothClients(s *site) {
	lines := strings.Split(strings.TrimSpace(s.read(desk+"/root/cluster/hello/outputs/greetings/line")), "\n")
	if len(lines) != 8 || lines[0] != "partition 0" || lines[7] != "partition 7" {
		s.t.Errorf("the merged result is %q", lines)
	}
	nodes := strings.Fields(s.run(desk, "agent -namespace photos partition list hello -t '{{range .}}{{.node}} {{end}}'"))
	slices.Sort(nodes)
	if nodes = slices.Compact(nodes); len(nodes) != 2 {
		s.t.Errorf("the job ran on the nodes %v", nodes)
	}
	if out, err := s.try(desk, "SHEAF_TOKEN=$(cat ann.token) agent namespace apply theirs"); err == nil {
		s.t.Errorf("a member of a team makes namespaces: %s", out)
	}
}

func mistakeUndone(s *site) {
	list := s.run(desk, "agent namespace list -q")
	if strings.Contains(list, "mistake") || !strings.Contains(list, "photos") {
		s.t.Errorf("after the restore the namespaces are %s", list)
	}
}

func serverLeft(s *site) {
	servers(s, "server-2", "server-3", "server-4")
	await(s.t, "the agent of server-1 has ended", func() bool {
		_, err := s.try("server-1", "systemctl is-active sheaf")
		return err != nil
	})
}

// agents are the machines that run one at present, by name, with the process.
func agents(s *site) map[string]string {
	s.t.Helper()
	pids := map[string]string{}
	for line := range strings.Lines(s.read(desk + "/root/cluster/machines")) {
		name := strings.Fields(line)[1]
		pids[name] = strings.TrimSpace(s.run(name, "systemctl is-active sheaf && cat /run/units/sheaf.pid"))
	}
	return pids
}

// noted is what a step wrote down for its second half.
func (s *site) noted(name, text string) { s.write("noted/"+name, text) }

func notePIDs(s *site) {
	for name, pid := range agents(s) {
		s.noted(name, pid)
	}
}

func allReplaced(s *site) {
	for name, pid := range agents(s) {
		if was := s.read("noted/" + name); was == pid {
			s.t.Errorf("the agent of %s is still process %s", name, was)
		}
	}
}

// certificate is the serial number of what a machine shows on the port of the API.
func certificate(s *site, address string) string {
	s.t.Helper()
	conn, err := s.dial(address + ":7610")
	if err != nil {
		s.t.Fatal(err)
	}
	defer conn.Close()
	c := tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
	_ = c.SetDeadline(time.Now().Add(patience))
	if err := c.Handshake(); err != nil {
		s.t.Fatal(err)
	}
	return c.ConnectionState().PeerCertificates[0].SerialNumber.String()
}

func noteCertificates(s *site) {
	for _, a := range []string{"10.20.0.12", "10.20.0.21"} {
		s.noted(a, certificate(s, a))
	}
	notePIDs(s)
}

func newCertificates(s *site) {
	for _, a := range []string{"10.20.0.12", "10.20.0.21"} {
		await(s.t, a+" shows its new certificate", func() bool { return certificate(s, a) != s.read("noted/"+a) })
	}
	for name, pid := range agents(s) {
		if was := s.read("noted/" + name); was != pid {
			s.t.Errorf("the agent of %s was restarted: process %s, now %s", name, was, pid)
		}
	}
}

func oneGossipKey(s *site) {
	eventually(s, "agent operator keyring list -t '{{len .keys}} {{(index .keys 0).primary}}'", func(out string) bool { return out == "1 5" })
}

func secretsUseNewKey(s *site) {
	if strings.Count(s.read("server-3/etc/sheaf.d/secrets.key"), "\n") != 1 {
		s.t.Error("the servers still have the old key")
	}
	s.run(desk, "agent job run hello.hcl -o again")
}

func oldTokenIsRefused(s *site) {
	s.run(desk, "SHEAF_TOKEN=$(cat ann.token) agent -namespace photos job list")
	if list := s.run(desk, "agent acl token list -t '{{range .}}{{.name}} {{end}}'"); strings.Count(list, "ann") != 1 {
		s.t.Errorf("the tokens are %s", list)
	}
}

// crash ends a machine's agent, the hard way.
func crash(s *site, name string) {
	s.t.Helper()
	s.run(name, "kill -KILL $(cat /run/units/sheaf.pid); while systemctl is-active sheaf; do sleep 0.1; done")
}

// damage flips bytes of a server's log while the server is down.
func damage(s *site) {
	crash(s, "server-4")
	logs, err := filepath.Glob(s.path("server-4/var/lib/sheaf/server/raft/*.db"))
	if err != nil || len(logs) != 1 {
		s.t.Fatalf("the raft log: %v %v", logs, err)
	}
	f, err := os.OpenFile(logs[0], os.O_RDWR, 0)
	if err != nil {
		s.t.Fatal(err)
	}
	defer f.Close()
	for page := range int64(2) { // both meta pages
		if _, err := f.WriteAt([]byte("damage"), page*4096+40); err != nil {
			s.t.Fatal(err)
		}
	}
	s.run("server-4", "systemctl start sheaf")
	await(s.t, "server-4 tells of the damage and the way out", func() bool {
		return strings.Contains(s.read("server-4/run/units/sheaf.log"), "agent operator raft reset -data-dir /var/lib/sheaf")
	})
}

// loseTwo takes two of three servers away with all that they had.
func loseTwo(s *site) {
	for _, name := range []string{"server-2", "server-4"} {
		crash(s, name)
		s.run(name, "rm -rf /var/lib/sheaf")
	}
	if out, err := s.try(desk, "agent namespace apply impossible -address https://10.20.0.13:7610"); err == nil {
		s.t.Fatalf("a write succeeds without a quorum: %s", out)
	}
}

func nothingWasLost(s *site) {
	servers(s, "server-2", "server-3", "server-4")
	if list := s.run(desk, "agent -namespace photos job list -t '{{range .}}{{.id}} {{.status}} {{end}}'"); strings.Count(list, " succeeded") != 2 {
		s.t.Errorf("after the loss the runs are %s", list)
	}
	s.run(desk, "agent job run hello.hcl -o once-more")
}

// loseAll takes all servers away with all that they had.
func loseAll(s *site) {
	for _, name := range []string{"server-2", "server-3", "server-4"} {
		crash(s, name)
		s.run(name, "rm -rf /var/lib/sheaf")
	}
}

func runsAreBack(s *site) {
	servers(s, "server-2", "server-3", "server-4")
	if list := s.run(desk, "agent -namespace photos job list -t '{{range .}}{{.id}} {{.status}} {{end}}'"); strings.Count(list, "hello-") == 0 {
		s.t.Errorf("after the restore the runs are %q", list)
	}
}

// stopAll: every agent ends in order, and leaves no process of its own.
func stopAll(s *site) {
	for name := range agents(s) {
		s.run(name, "systemctl stop sheaf")
	}
	left := ""
	if !within(patience, func() (gone bool) {
		var err error
		left, err = s.try(desk, "grep -alz '^/usr/local/bin/agent$' /proc/[0-9]*/cmdline")
		return err != nil
	}) {
		s.t.Errorf("agents that were stopped left processes:\n%s", left)
	}
}
