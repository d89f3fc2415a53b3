package command

import (
	"github.com/spf13/pflag"

	"github.com/sheaf-run/agent/api"
)

// connection adds the flags that say which agent to talk to, and how.
func (e *env) connection(f *pflag.FlagSet) {
	f.StringVar(&e.connect.Address, "address", "", "`URL` of the agent; SHEAF_ADDR")
	f.StringVar(&e.connect.CACert, "ca-cert", "", "`FILE` of the cluster's authority, for HTTPS; SHEAF_CACERT")
	f.StringVar(&e.connect.ClientCert, "client-cert", "", "`FILE` of the certificate to show; SHEAF_CLIENT_CERT")
	f.StringVar(&e.connect.ClientKey, "client-key", "", "`FILE` of its key; SHEAF_CLIENT_KEY")
	f.StringVar(&e.connect.TLSServerName, "tls-server-name", "", "`NAME` to expect in the agent's certificate; SHEAF_TLS_SERVER_NAME")
}

// apiConfig is what the flags say, and where they say nothing the environment.
func (e *env) apiConfig() api.Config {
	conf := api.FromEnvironment()
	for _, o := range []struct {
		dst  *string
		flag string
	}{
		{&conf.Address, e.connect.Address}, {&conf.CACert, e.connect.CACert}, {&conf.ClientCert, e.connect.ClientCert},
		{&conf.ClientKey, e.connect.ClientKey}, {&conf.TLSServerName, e.connect.TLSServerName},
	} {
		if o.flag != "" {
			*o.dst = o.flag
		}
	}
	return conf
}

// client connects to the agent that flags or the environment name.
func (e *env) client() (*api.Client, error) { return api.New(e.apiConfig()) }
