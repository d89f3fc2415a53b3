package plugin

import (
	"encoding/json"
	"fmt"
	"os"
)

// OptionsVariable is where a plugin's process finds what the agent's configuration says to it.
const OptionsVariable = "SHEAF_PLUGIN_CONFIG"

// Options are the `config` of the plugin's block in the agent's configuration; nil without one.
// It is called in the plugin's process.
func Options() (map[string]string, error) {
	text := os.Getenv(OptionsVariable)
	if text == "" {
		return nil, nil
	}
	var m map[string]string
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		return nil, fmt.Errorf("read %s: %w", OptionsVariable, err)
	}
	return m, nil
}
