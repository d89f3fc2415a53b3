package command

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sheaf-run/agent/internal/pki"
)

const (
	authorityCert = "ca.pem"
	authorityKey  = "ca-key.pem"
	day           = 24 * time.Hour
	maxDays       = 100 * 365
)

func (e *env) tlsInit() *cobra.Command {
	var dir string
	var days int
	c := &cobra.Command{
		Use: "init", Short: "Make the cluster's certificate authority", Args: args(0, "no arguments"),
		Long: "Makes the cluster's certificate authority: " + authorityCert + ", which every agent and person gets, and " + authorityKey + ",\n" +
			"which signs certificates and belongs on no agent. Files that are there already are never overwritten.\n\n" + exitHelp,
		RunE: func(*cobra.Command, []string) error {
			lasts, err := lasting(days)
			if err != nil {
				return err
			}
			pair, err := pki.NewAuthority(time.Now(), lasts)
			if err != nil {
				return err
			}
			cert, key := filepath.Join(dir, authorityCert), filepath.Join(dir, authorityKey)
			if err := e.writePair(pair, cert, key); err != nil {
				return err
			}
			e.hint("make certificates with it: agent tls cert -server -name NAME -ip ADDRESS%s", dirFlag(dir))
			return nil
		},
	}
	c.Flags().StringVar(&dir, "dir", ".", "where the files go")
	c.Flags().IntVar(&days, "days", 3650, "how long the authority is good for")
	return c
}

func (e *env) tlsCert() *cobra.Command {
	var dir, region, name string
	var dns, ips []string
	var days int
	var is struct{ server, client, cli bool }
	c := &cobra.Command{
		Use: "cert", Short: "Make a certificate for an agent or a person", Args: args(0, "no arguments"),
		Long: "Makes a certificate, signed by the authority that `agent tls init` made, and its key. Role, region and name are part of it:\n" +
			"a client's cannot pass for a server's, nor one node's for another's. An agent that is both is a -server.\n" +
			"Agents' certificates are good for HTTPS too: localhost and 127.0.0.1 are in them, and what -dns and -ip add.\n\n" + exitHelp,
		RunE: func(*cobra.Command, []string) error {
			role, err := oneRole(is.server, is.client, is.cli)
			if err != nil {
				return err
			}
			lasts, err := lasting(days)
			if err != nil {
				return err
			}
			if name == "" {
				name = "operator"
				if role != pki.CLI {
					if name, err = os.Hostname(); err != nil {
						return fmt.Errorf("name the agent after its host: %w", err)
					}
				}
			}
			r := pki.Request{Identity: pki.Identity{Role: role, Region: region, Name: name}, DNS: dns, Lasts: lasts}
			for _, text := range ips {
				ip := net.ParseIP(text)
				if ip == nil {
					return usage("-ip %q is no IP address; names go to -dns", text)
				}
				r.IPs = append(r.IPs, ip)
			}
			if role != pki.CLI {
				r.DNS, r.IPs = append(r.DNS, "localhost"), append(r.IPs, net.IPv4(127, 0, 0, 1), net.IPv6loopback)
			}
			authority, err := readAuthority(dir)
			if err != nil {
				return err
			}
			pair, err := pki.Issue(authority, r, time.Now())
			if err != nil {
				return err
			}
			base := filepath.Join(dir, fmt.Sprintf("%s-%s-%s", region, role, name))
			return e.writePair(pair, base+".pem", base+"-key.pem")
		},
	}
	f := c.Flags()
	f.BoolVar(&is.server, "server", false, "for a server, or an agent that is both")
	f.BoolVar(&is.client, "client", false, "for a client")
	f.BoolVar(&is.cli, "cli", false, "for a person or program that uses the HTTP API, where that asks for certificates")
	f.StringVar(&region, "region", "global", "of the agent")
	f.StringVar(&name, "name", "", "of the agent, as in its configuration; this host's name unless given")
	f.StringSliceVar(&dns, "dns", nil, "a further DNS `NAME` under which HTTPS is reached; may be repeated")
	f.StringSliceVar(&ips, "ip", nil, "a further `ADDRESS` under which HTTPS is reached; may be repeated")
	f.IntVar(&days, "days", 365, "how long it is good for")
	f.StringVar(&dir, "dir", ".", "where the authority is, and where the files go")
	return c
}

func (e *env) tlsShow() *cobra.Command {
	return &cobra.Command{
		Use: "show FILE", Short: "Say whom a certificate is for", Args: args(1, "one file"),
		Long: "Prints whom the certificates in a file are for, and until when they are good.\n\n" + exitHelp,
		RunE: func(_ *cobra.Command, given []string) error {
			b, err := os.ReadFile(given[0])
			if err != nil {
				return usage("read certificate: %v", err)
			}
			certs, err := pki.ReadCertificates(b)
			if err != nil {
				return usage("%s: %v", given[0], err)
			}
			var all []shownCertificate
			var names []string
			for _, cert := range certs {
				s := shownCertificate{Subject: cert.Subject.CommonName, Authority: cert.IsCA, DNS: cert.DNSNames, From: cert.NotBefore, Until: cert.NotAfter}
				for _, ip := range cert.IPAddresses {
					s.IPs = append(s.IPs, ip.String())
				}
				if id, err := pki.IdentityOf(cert); err == nil {
					s.Role, s.Region, s.Name = id.Role, id.Region, id.Name
				}
				all, names = append(all, s), append(names, s.Subject)
			}
			if ok, err := e.shaped(all, names...); ok {
				return err
			}
			rows := [][]string{{"FOR", "ROLE", "REGION", "NAME", "UNTIL", "ALSO KNOWN AS"}}
			for _, s := range all {
				role := string(s.Role)
				if s.Authority {
					role = "authority"
				}
				rows = append(rows, []string{s.Subject, role, s.Region, s.Name, s.Until.Format(time.DateOnly), strings.Join(append(s.DNS, s.IPs...), " ")})
			}
			return e.table(rows)
		},
	}
}

// shownCertificate is the JSON form of `agent tls show`.
type shownCertificate struct {
	Subject   string    `json:"subject"`
	Authority bool      `json:"authority"`
	Role      pki.Role  `json:"role,omitempty"`
	Region    string    `json:"region,omitempty"`
	Name      string    `json:"name,omitempty"`
	DNS       []string  `json:"dns,omitempty"`
	IPs       []string  `json:"ips,omitempty"`
	From      time.Time `json:"from"`
	Until     time.Time `json:"until"`
}

func oneRole(server, client, cli bool) (pki.Role, error) {
	var picked []pki.Role
	for _, r := range []struct {
		is   bool
		role pki.Role
	}{{server, pki.Server}, {client, pki.Client}, {cli, pki.CLI}} {
		if r.is {
			picked = append(picked, r.role)
		}
	}
	if len(picked) != 1 {
		return "", usage("say whom the certificate is for: one of -server, -client and -cli")
	}
	return picked[0], nil
}

func lasting(days int) (time.Duration, error) {
	if days < 1 || days > maxDays {
		return 0, usage("-days %d: give 1 to %d", days, maxDays)
	}
	return time.Duration(days) * day, nil
}

func dirFlag(dir string) string {
	if dir == "." {
		return ""
	}
	return " -dir " + dir
}

func readAuthority(dir string) (p pki.Pair, err error) {
	for name, dst := range map[string]*[]byte{authorityCert: &p.Cert, authorityKey: &p.Key} {
		if *dst, err = os.ReadFile(filepath.Join(dir, name)); err != nil {
			return p, usage("read the authority: %v\nmake one with `agent tls init`, or say with -dir where it is", err)
		}
	}
	return p, nil
}

// writePair writes both files or none, and never over one that is there.
func (e *env) writePair(p pki.Pair, cert, key string) error {
	if err := writeNew(key, p.Key, 0o600); err != nil {
		return err
	}
	if err := writeNew(cert, p.Cert, 0o644); err != nil {
		return errors.Join(err, os.Remove(key))
	}
	fmt.Fprintln(e.out, cert)
	fmt.Fprintln(e.out, key)
	return nil
}

func writeNew(path string, data []byte, mode os.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if errors.Is(err, os.ErrExist) {
		return usage("%s exists already: move it away first, or give another -dir", path)
	}
	if err != nil {
		return usage("write %s: %v", path, err)
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err != nil {
		os.Remove(path)
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
