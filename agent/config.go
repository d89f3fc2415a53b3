package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/gohcl"
	"github.com/hashicorp/hcl/v2/hclparse"

	"github.com/sheaf-run/agent/client"
	"github.com/sheaf-run/agent/drivers/builtin"
	"github.com/sheaf-run/agent/sheaf"
)

// Ports, unless told otherwise.
const (
	DefaultHTTPPort   = 7610
	DefaultRPCPort    = 7611 // raft and gRPC
	DefaultGossipPort = 7612
)

// Config is all that an operator decides about an agent. Files are HCL; several
// are laid over each other in the order given, and a folder stands for its
// *.hcl files in order of name.
type Config struct {
	Name       string `hcl:"name,optional"`       // the host's name
	Region     string `hcl:"region,optional"`     // "global"
	Datacenter string `hcl:"datacenter,optional"` // "dc1"
	DataDir    string `hcl:"data_dir,optional"`   // "" keeps nothing: agent dev only
	Bind       string `hcl:"bind,optional"`       // address to listen on; 127.0.0.1
	Advertise  string `hcl:"advertise,optional"`  // address that others dial; Bind
	LogLevel   string `hcl:"log_level,optional"`  // debug, info, warn or error
	Insecure   bool   `hcl:"insecure,optional"`   // allows other than loopback without TLS and ACLs

	Ports  *Ports        `hcl:"ports,block"`
	Join   []string      `hcl:"join,optional"` // gossip addresses of other agents
	Server *ServerConfig `hcl:"server,block"`
	Client *ClientConfig `hcl:"client,block"`
	TLS    *TLSConfig    `hcl:"tls,block"`
	Gossip *GossipConfig `hcl:"gossip,block"`
	ACL    *ACLConfig    `hcl:"acl,block"`
	HTTP   *HTTPConfig   `hcl:"http,block"`
}

// Ports are the ports of an agent. In a file a missing one is the default; 0 in code picks any.
type Ports struct {
	HTTP   int `hcl:"http,optional"`
	RPC    int `hcl:"rpc,optional"`
	Gossip int `hcl:"gossip,optional"`
}

// fill gives the ports that a file leaves out their defaults.
func (p *Ports) fill() {
	for port, usual := range map[*int]int{&p.HTTP: DefaultHTTPPort, &p.RPC: DefaultRPCPort, &p.Gossip: DefaultGossipPort} {
		if *port == 0 {
			*port = usual
		}
	}
}

// ServerConfig is about the server role.
type ServerConfig struct {
	Enabled bool `hcl:"enabled,optional"`
	// BootstrapExpect is how many servers found the cluster together: every one of them is told the
	// same. It matters once: a server with data, or one that finds a cluster, joins what is there. Without it
	// a server with addresses to join waits to be taken in, and one without founds a cluster of its own.
	BootstrapExpect int `hcl:"bootstrap_expect,optional"`
	// SecretsKeyFile holds the keys that secrets are sealed with, the same on all servers of the
	// region. A server that founds its cluster alone makes one in its data directory unless told.
	SecretsKeyFile string `hcl:"secrets_key_file,optional"`

	Heartbeat *HeartbeatConfig `hcl:"heartbeat,block"`
	Retention *RetentionConfig `hcl:"retention,block"`
}

// maxExpect bounds the founding servers: each more makes every write slower, and
// seven survive the loss of three.
const maxExpect = 7

// expect is BootstrapExpect, or what its absence means.
func (c Config) expect() int {
	if c.Server.BootstrapExpect == 0 && len(c.Join) == 0 {
		return 1
	}
	return c.Server.BootstrapExpect
}

// ClientConfig is about the client role.
type ClientConfig struct {
	Enabled    bool              `hcl:"enabled,optional"`
	Class      string            `hcl:"class,optional"`
	Attributes map[string]string `hcl:"attributes,optional"`
	Drivers    []string          `hcl:"drivers,optional"` // wasm and containerd unless told; exec must be named
	FileRoots  []FileRoot        `hcl:"file_root,block"`
	S3         []S3Config        `hcl:"s3,block"`    // in the order in which they are tried
	HTTPS      []HTTPSConfig     `hcl:"https,block"` // likewise
	IPFS       *IPFSConfig       `hcl:"ipfs,block"`
	Cache      string            `hcl:"cache,optional"` // size: how much is kept of files fetched from elsewhere
	GC         *GCConfig         `hcl:"gc,block"`
	Resources  *ResourcesConfig  `hcl:"resources,block"` // instead of what is measured
	Reserve    *ResourcesConfig  `hcl:"reserve,block"`   // kept back for the rest of the machine
	Slots      int               `hcl:"slots,optional"`  // fixed number of executions at once, for benchmarks
	Containerd *ContainerdConfig `hcl:"containerd,block"`
	PluginDir  string            `hcl:"plugin_dir,optional"` // where the programs of plugins are
	Plugins    []PluginConfig    `hcl:"plugin,block"`
}

// ACLConfig is about who may use the API.
type ACLConfig struct {
	Enabled bool `hcl:"enabled,optional"`
}

// FileRoot is a directory that jobs may read.
type FileRoot struct {
	Path     string `hcl:"path,label"`
	Shared   bool   `hcl:"shared,optional"`   // every client that lists it sees the same files
	Writable bool   `hcl:"writable,optional"` // results of runs may be published there
}

// S3Config says how jobs reach the buckets of a pattern: with credentials, or anonymously.
type S3Config struct {
	Pattern         string `hcl:"bucket,label"`                      // as in "logs-*"
	Endpoint        string `hcl:"endpoint,optional"`                 // URL of the service; Amazon's
	Region          string `hcl:"region,optional"`                   // asked of the service
	PathStyle       bool   `hcl:"path_style,optional"`               // the bucket stands in the path
	Anonymous       bool   `hcl:"anonymous,optional"`                // requests are not signed
	AccessKey       string `hcl:"access_key,optional" show:"hidden"` // with SecretKeyFile
	SecretKeyFile   string `hcl:"secret_key_file,optional"`          // holds the key alone
	CredentialsFile string `hcl:"credentials_file,optional"`         // in the form of ~/.aws/credentials
	Profile         string `hcl:"profile,optional"`                  // in CredentialsFile; "default"
	Writable        bool   `hcl:"writable,optional"`                 // results of runs may be published there
}

// HTTPSConfig lets jobs read from the hosts of a pattern.
type HTTPSConfig struct {
	Pattern    string `hcl:"host,label"`           // as in "*.example.org"
	Private    bool   `hcl:"private,optional"`     // they may lie at loopback and private addresses
	CAFile     string `hcl:"ca_file,optional"`     // who may vouch for them, in PEM; the system's authorities
	HeaderFile string `hcl:"header_file,optional"` // lines of "Name: value" for every request, such as Authorization
}

// IPFSConfig lets jobs read from IPFS.
type IPFSConfig struct {
	Gateways []string `hcl:"gateways"` // URLs, asked in turn; those of this machine too
}

// ResourcesConfig is an amount of resources; what is not given is left alone.
type ResourcesConfig struct {
	CPU    int    `hcl:"cpu,optional"`    // MHz
	Memory string `hcl:"memory,optional"` // with its unit
	Disk   string `hcl:"disk,optional"`
	Pids   int    `hcl:"pids,optional"`
}

// ContainerdConfig is about the containerd driver.
type ContainerdConfig struct {
	Address string `hcl:"address,optional"` // of its socket
	Images  string `hcl:"images,optional"`  // 36h: how long images are kept that no run uses
}

// LoadConfig reads files and folders, in order. Mistakes name file, line and column.
func LoadConfig(paths []string) (Config, error) {
	var bodies []hcl.Body
	parser := hclparse.NewParser()
	for _, path := range paths {
		files, err := configFiles(path)
		if err != nil {
			return Config{}, err
		}
		for _, f := range files {
			parsed, diags := parser.ParseHCLFile(f)
			if diags.HasErrors() {
				return Config{}, configError(parser, diags)
			}
			bodies = append(bodies, parsed.Body)
		}
	}
	var conf Config
	for _, body := range bodies {
		var one Config
		if diags := gohcl.DecodeBody(body, nil, &one); diags.HasErrors() {
			return Config{}, configError(parser, diags)
		}
		if one.Ports != nil {
			one.Ports.fill()
		}
		conf = conf.over(one)
	}
	return conf, nil
}

func configFiles(path string) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, &sheaf.Error{Class: sheaf.Invalid, Field: "config", Msg: "read configuration", Err: err, Hint: "name a file or a folder with *.hcl files"}
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	files, err := filepath.Glob(filepath.Join(path, "*.hcl"))
	if err != nil {
		return nil, fmt.Errorf("list configuration folder: %w", err)
	}
	slices.Sort(files)
	return files, nil
}

func configError(parser *hclparse.Parser, diags hcl.Diagnostics) error {
	var b strings.Builder
	w := hcl.NewDiagnosticTextWriter(&b, parser.Files(), 100, false)
	if err := w.WriteDiagnostics(diags); err != nil {
		return fmt.Errorf("describe mistakes of the configuration: %w", err)
	}
	return &sheaf.Error{Class: sheaf.Invalid, Field: "config", Msg: "the configuration has mistakes:\n" + strings.TrimSpace(b.String())}
}

// over lays a later file over c: what it gives replaces, lists of files to join and roots add up.
func (c Config) over(o Config) Config {
	set := func(dst *string, v string) {
		if v != "" {
			*dst = v
		}
	}
	set(&c.Name, o.Name)
	set(&c.Region, o.Region)
	set(&c.Datacenter, o.Datacenter)
	set(&c.DataDir, o.DataDir)
	set(&c.Bind, o.Bind)
	set(&c.Advertise, o.Advertise)
	set(&c.LogLevel, o.LogLevel)
	c.Insecure = c.Insecure || o.Insecure
	c.Join = append(c.Join, o.Join...)
	if o.Ports != nil {
		c.Ports = o.Ports
	}
	if o.Server != nil {
		c.Server = o.Server
	}
	if o.TLS != nil {
		c.TLS = o.TLS
	}
	if o.HTTP != nil {
		c.HTTP = o.HTTP
	}
	if o.ACL != nil {
		c.ACL = o.ACL
	}
	if o.Gossip != nil {
		c.Gossip = o.Gossip
	}
	if o.Client != nil {
		if c.Client != nil {
			o.Client.FileRoots = append(c.Client.FileRoots, o.Client.FileRoots...)
			o.Client.S3 = append(c.Client.S3, o.Client.S3...)
			o.Client.HTTPS = append(c.Client.HTTPS, o.Client.HTTPS...)
		}
		c.Client = o.Client
	}
	return c
}

// Filled fills in the defaults of a daemon and checks the whole.
func (c Config) Filled() (Config, error) {
	if c.Name == "" {
		host, err := os.Hostname()
		if err != nil {
			return c, fmt.Errorf("name the agent after its host: %w", err)
		}
		c.Name = host
	}
	orDefault := func(dst *string, v string) {
		if *dst == "" {
			*dst = v
		}
	}
	orDefault(&c.Region, "global")
	orDefault(&c.Datacenter, "dc1")
	orDefault(&c.Bind, "127.0.0.1")
	orDefault(&c.Advertise, c.Bind)
	orDefault(&c.LogLevel, "info")
	if c.Ports == nil {
		c.Ports = &Ports{HTTP: DefaultHTTPPort, RPC: DefaultRPCPort, Gossip: DefaultGossipPort}
	}
	if c.Server == nil {
		c.Server = &ServerConfig{}
	}
	if c.Client == nil {
		c.Client = &ClientConfig{}
	}
	if c.Client.Drivers == nil {
		c.Client.Drivers = []string{"wasm", "containerd"}
	}
	return c, c.check()
}

func (c Config) check() error {
	for what, name := range map[string]string{"name": c.Name, "region": c.Region, "datacenter": c.Datacenter} {
		if err := sheaf.CheckName(what, name); err != nil {
			return err
		}
	}
	if _, err := c.HTTP.limits(); err != nil {
		return err
	}
	if !c.Server.Enabled && !c.Client.Enabled {
		return &sheaf.Error{Class: sheaf.Invalid, Field: "server, client", Msg: "the agent has no role", Hint: "give -server or -client, or both, or enable them in the configuration"}
	}
	if _, err := c.Server.Heartbeat.heartbeat(); err != nil {
		return err
	}
	if _, err := c.Server.Retention.retention(); err != nil {
		return err
	}
	if n := c.Server.BootstrapExpect; n < 0 || n > maxExpect {
		return &sheaf.Error{Class: sheaf.Invalid, Field: "server.bootstrap_expect", Msg: fmt.Sprintf("bootstrap_expect is %d", n), Limit: fmt.Sprintf("1 to %d", maxExpect), Hint: "3 servers survive the loss of one, 5 of two"}
	}
	for _, d := range c.Client.Drivers {
		if !slices.Contains(builtin.Names(), d) {
			return &sheaf.Error{Class: sheaf.Invalid, Field: "client.drivers", Msg: fmt.Sprintf("driver %q is unknown", d), Hint: "known: " + strings.Join(builtin.Names(), ", ")}
		}
	}
	if err := c.Client.checkPlugins(); err != nil {
		return err
	}
	if err := c.Client.gc(&client.Config{}); err != nil {
		return err
	}
	if err := c.Client.Containerd.check(); err != nil {
		return err
	}
	for _, r := range c.Client.FileRoots {
		if !filepath.IsAbs(r.Path) {
			return &sheaf.Error{Class: sheaf.Invalid, Field: "client.file_root", Msg: fmt.Sprintf("file_root %q is not absolute", r.Path), Hint: "write the whole path, from /"}
		}
	}
	if err := c.TLS.check(); err != nil {
		return err
	}
	if _, err := c.Gossip.key(); err != nil {
		return err
	}
	return c.checkExposure()
}

func (r *ResourcesConfig) resources(field string) (sheaf.Resources, error) {
	if r == nil {
		return sheaf.Resources{}, nil
	}
	out := sheaf.Resources{CPU: r.CPU, Pids: r.Pids}
	for _, s := range []struct {
		text string
		dst  *sheaf.Size
	}{{r.Memory, &out.Memory}, {r.Disk, &out.Disk}} {
		if s.text == "" {
			continue
		}
		v, err := sheaf.ParseSize(s.text)
		if err != nil {
			return out, fmt.Errorf("%s: %w", field, err)
		}
		*s.dst = v
	}
	return out, nil
}
