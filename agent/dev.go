package agent

// DevConfig is the configuration of an agent for trying things out: server and
// client in one, on loopback, every driver on, every file readable and writable, the world's web servers readable, nothing deleted for room. With an
// empty data directory nothing outlives it.
func DevConfig(dataDir string, ports Ports) Config {
	return Config{
		Name: "dev", DataDir: dataDir, Ports: &ports,
		Server: &ServerConfig{Enabled: true},
		Client: &ClientConfig{
			Enabled: true, Drivers: []string{"wasm", "exec", "containerd", "mock"},
			FileRoots: []FileRoot{{Path: "/", Shared: true, Writable: true}}, HTTPS: []HTTPSConfig{{Pattern: "*"}},
			GC: &GCConfig{DiskUsage: 100, InodeUsage: 100}, // the disk is a person's, full of other things
		},
	}
}
