package jobspec

import (
	"os"
	"testing"

	"github.com/sheaf-run/agent/sheaf"
)

// TestMain lets the test binary be the evaluating child, as agent is.
func TestMain(m *testing.M) {
	if IsChild(os.Args) {
		os.Exit(ChildMain(os.Args, os.Stdin, os.Stdout))
	}
	os.Exit(m.Run())
}

// drivers are schemas such as the drivers give.
var drivers = map[string]sheaf.ConfigSchema{
	"exec": {Driver: "exec", Attributes: []sheaf.ConfigAttribute{
		{Name: "command", Kind: sheaf.ConfigString, Required: true, Doc: "the program"},
		{Name: "args", Kind: sheaf.ConfigStrings, Doc: "its arguments"},
	}},
	"wasm": {Driver: "wasm", Attributes: []sheaf.ConfigAttribute{
		{Name: "module", Kind: sheaf.ConfigString, Required: true, URL: true, Doc: "where the module lies"},
		{Name: "args", Kind: sheaf.ConfigStrings, Doc: "its arguments"},
	}},
	"containerd": {Driver: "containerd", Attributes: []sheaf.ConfigAttribute{
		{Name: "image", Kind: sheaf.ConfigString, Required: true, Doc: "a reference or an archive"},
		{Name: sheaf.RegistrySecret, Kind: sheaf.ConfigString, Doc: "a secret"},
		{Name: "entrypoint", Kind: sheaf.ConfigStrings, Doc: "instead of the image's own"},
		{Name: "args", Kind: sheaf.ConfigStrings, Doc: "the arguments"},
	}},
	"mock": {Driver: "mock", Attributes: []sheaf.ConfigAttribute{
		{Name: "run_for", Kind: sheaf.ConfigString, Doc: "how long"},
		{Name: "exit", Kind: sheaf.ConfigNumber, Doc: "the exit code"},
		{Name: "fail", Kind: sheaf.ConfigBool, Doc: "whether to fail"},
		{Name: "labels", Kind: sheaf.ConfigMap, Doc: "anything"},
	}},
}

// source is a jobspec in the folder /jobs.
func source(text string) Source { return Source{Name: "job.hcl", Dir: "/jobs", Data: []byte(text)} }
