package agent

import (
	"sync"

	"github.com/sheaf-run/agent/internal/seal"
	"github.com/sheaf-run/agent/server/rpc"
)

// secretKeys gives the keys of secrets. The file that the configuration names is read for every use,
// so that keys are replaced without a restart, and once here, so that a wrong one is told
// at the start. A server that founds its cluster alone gets a key without being asked: kept
// beside its log, or with nothing on disk in memory. Other servers have none until they are told.
func (a *Agent) secretKeys() (rpc.Keys, error) {
	file := a.conf.Server.SecretsKeyFile
	switch {
	case file != "":
		if _, err := seal.Load(file); err != nil {
			return nil, err
		}
		return func() (*seal.Keys, error) { return seal.Load(file) }, nil
	case a.conf.expect() != 1:
		return nil, nil
	case a.conf.DataDir == "":
		return sync.OnceValues(func() (*seal.Keys, error) { return seal.Parse([]byte(seal.NewKey())) }), nil
	}
	own := below(a.conf.DataDir, "server/secrets.key")
	return func() (*seal.Keys, error) { return seal.LoadOrMake(own) }, nil
}
