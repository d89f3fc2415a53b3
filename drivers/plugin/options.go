package plugin

import (
	"encoding/json"
	"fmt"
	"os"
)

// optionsVariable is where a plugin's process finds what the agent's configuration says to it.
const optionsVariable = "SHEAF_PLUGIN_CONFIG"

// Setting is the variable that [Options] reads in the plugin's process, for Config.Env.
func Setting(options map[string]string) string {
	b, err := json.Marshal(options)
	if err != nil {
		panic(fmt.Sprintf("plugin: texts have no JSON form: %v", err))
	}
	return optionsVariable + "=" + string(b)
}

// Options are the `config` of the plugin's block in the agent's configuration; nil without one.
// It is called in the plugin's process.
func Options() (map[string]string, error) {
	text := os.Getenv(optionsVariable)
	if text == "" {
		return nil, nil
	}
	var m map[string]string
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		return nil, fmt.Errorf("read %s: %w", optionsVariable, err)
	}
	return m, nil
}
