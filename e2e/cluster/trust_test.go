package cluster

import "github.com/sheaf-run/agent/api"

// trust is how the agents of a cluster know each other, and the test them.
type trust struct{}

// newTrust makes what must be there before the first agent starts.
func newTrust(*cluster) trust { return trust{} }

// config is the part of an agent's configuration that is about it.
func (trust) config(*agent) string { return "insecure = true\n" }

// client is how the test reaches an agent.
func (trust) client(a *agent) api.Config {
	return api.Config{Address: "http://" + a.address + ":7610"}
}

// environment is the same for the command line.
func (trust) environment(a *agent) []string {
	return []string{"SHEAF_ADDR=http://" + a.address + ":7610"}
}

// bootstrap makes what only a running cluster can make.
func (trust) bootstrap(*cluster) {}
