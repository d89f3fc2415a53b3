package agent

import (
	"encoding/json"
	"strings"
	"testing"
)

// TestShowHidesSecrets: what helps to find out what is wrong may be handed to others.
func TestShowHidesSecrets(t *testing.T) {
	c := Config{
		Name: "n", Join: []string{"a:1"}, Gossip: &GossipConfig{Key: "precious-1"},
		Client: &ClientConfig{S3: []S3Config{{Pattern: "logs-*", AccessKey: "precious-2", SecretKeyFile: "/k"}}, Plugins: []PluginConfig{{Name: "p", Config: map[string]string{"password": "precious-3"}}}},
	}
	b, err := json.Marshal(c.Show())
	if err != nil {
		t.Fatal(err)
	}
	if text := string(b); strings.Contains(text, "precious") || strings.Contains(text, "password") {
		t.Error("it shows", text)
	}
	const want = `{"client":{"plugin":[{"config":"(hidden)","name":"p"}],"s3":[{"access_key":"(hidden)","bucket":"logs-*","secret_key_file":"/k"}]},"gossip":{"key":"(hidden)"},"join":["a:1"],"name":"n"}`
	if string(b) != want {
		t.Errorf("it shows %s", b)
	}
}
