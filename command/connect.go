package command

import (
	"github.com/spf13/pflag"

	"github.com/sheaf-run/agent/api"
	"github.com/sheaf-run/agent/sheaf"
)

// connection adds the flags that say which agent to talk to, and how.
func (e *env) connection(f *pflag.FlagSet) {
	f.StringVar(&e.connect.Address, "address", "", "`URL` of the agent; SHEAF_ADDR")
	f.StringVar(&e.connect.Token, "token", "", "`SECRET` of the token to show; SHEAF_TOKEN, and else the file token in the folder sheaf of the user's configuration")
	f.StringVar(&e.connect.Namespace, "namespace", "", "`NAMESPACE` to look into, and of jobs that name none; SHEAF_NAMESPACE, else default")
	f.BoolVar(&e.connect.Stale, "stale", false, "let the agent that is asked answer reads from what it has, also while there is no leader")
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
		{&conf.Address, e.connect.Address}, {&conf.Token, e.connect.Token}, {&conf.Namespace, e.connect.Namespace},
		{&conf.CACert, e.connect.CACert}, {&conf.ClientCert, e.connect.ClientCert},
		{&conf.ClientKey, e.connect.ClientKey}, {&conf.TLSServerName, e.connect.TLSServerName},
	} {
		if o.flag != "" {
			*o.dst = o.flag
		}
	}
	conf.Stale = e.connect.Stale
	return conf
}

// client connects to the agent that flags or the environment name.
func (e *env) client() (*api.Client, error) {
	conf := e.apiConfig()
	if conf.Token == "" {
		var err error
		if conf.Token, err = ownToken(); err != nil {
			return nil, err
		}
	}
	return api.New(conf)
}

// inNamespace puts a job that names no namespace, or default, into the one that flags or the environment name.
func (e *env) inNamespace(job *sheaf.Job) {
	if ns := e.apiConfig().Namespace; ns != "" && ns != "*" && job.Namespace == sheaf.DefaultNamespace {
		job.Namespace = ns
	}
}

// follow makes what the command asks from now on about the job's namespace, where its run is looked for.
func (e *env) follow(job *sheaf.Job) {
	if job.Namespace != sheaf.DefaultNamespace {
		e.connect.Namespace = job.Namespace
	}
}

// named is how the next command names a run: with the namespace, where the environment does not say it.
func (e *env) named(run sheaf.RunID) string {
	if ns := e.connect.Namespace; ns != "" && ns != "*" && ns != api.FromEnvironment().Namespace {
		return "-namespace " + ns + " " + string(run)
	}
	return string(run)
}
