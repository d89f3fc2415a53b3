package sheaf

// Task is the program that runs once for every partition.
type Task struct {
	Name        string            `json:"name"`
	Driver      string            `json:"driver"`
	Config      map[string]any    `json:"config,omitempty"` // by the driver's ConfigSchema: string, []any of string, map of string, float64, bool
	Env         map[string]string `json:"env,omitempty"`
	Secrets     []TaskSecret      `json:"secrets,omitempty"`
	Timeout     Duration          `json:"timeout,omitempty"` // of one try; 0 is none
	KillSignal  string            `json:"kill_signal,omitempty"`
	KillTimeout Duration          `json:"kill_timeout"`
	Network     string            `json:"network"`
	Resources   Resources         `json:"resources"`
}

// Resources are what one execution takes, or what a node has.
type Resources struct {
	CPU     int      `json:"cpu"` // MHz
	Memory  Size     `json:"memory"`
	Disk    Size     `json:"disk"` // the shard's bytes come on top
	Pids    int      `json:"pids"`
	Devices []Device `json:"devices,omitempty"`
}

// Device asks for a number of devices of a kind.
type Device struct {
	Name  string `json:"name"` // "nvidia/gpu"
	Count int    `json:"count"`
}

// ConfigSchema describes the `config` block of a driver, so that a jobspec can
// be checked without the driver.
type ConfigSchema struct {
	Driver     string
	Attributes []ConfigAttribute
	Open       bool // the driver is not part of the agent: it alone knows its arguments
}

// ConfigAttribute is one argument of a driver's config block.
type ConfigAttribute struct {
	Name     string
	Kind     ConfigKind
	Required bool
	// URL marks a module or image location: a relative path is taken from the
	// jobspec's folder and becomes a file:// URL.
	URL bool
	Doc string // one line for the reference
}

// ConfigKind is the type of a driver's argument.
type ConfigKind string

// Kinds of driver arguments.
const (
	ConfigString  ConfigKind = "string"
	ConfigStrings ConfigKind = "list(string)"
	ConfigMap     ConfigKind = "map(string)"
	ConfigNumber  ConfigKind = "number"
	ConfigBool    ConfigKind = "bool"
)
