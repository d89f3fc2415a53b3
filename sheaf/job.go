package sheaf

// Job is what a person submits, under a name. It is complete: defaults are
// filled in by whoever builds it (jobspec does), and its JSON form is the API's.
type Job struct {
	Name        string            `json:"name"`
	Type        string            `json:"type"` // JobBatch or JobOps
	Region      string            `json:"region,omitempty"`
	Namespace   string            `json:"namespace"`
	Datacenters []string          `json:"datacenters"`
	Priority    int               `json:"priority"`        // 1..100
	Count       int               `json:"count,omitempty"` // 1..MaxPartitions; 0 where Split is set
	Timeout     Duration          `json:"timeout,omitempty"`
	Reuse       bool              `json:"reuse,omitempty"`
	Isolation   string            `json:"isolation"` // IsolationPartition or IsolationRun
	Backups     bool              `json:"backups"`   // what is slow may get a second attempt, on another node
	Meta        map[string]string `json:"meta,omitempty"`
	Compat      []string          `json:"compat,omitempty"`
	After       []string          `json:"after,omitempty"`
	Inputs      []Input           `json:"inputs,omitempty"`
	Split       *Split            `json:"split,omitempty"`
	Parallelism *Parallelism      `json:"parallelism,omitempty"`
	Task        Task              `json:"task"`
	Outputs     []Output          `json:"outputs,omitempty"`
	Retry       Retry             `json:"retry"`
	Failure     Failure           `json:"failure"`
	Constraints []Constraint      `json:"constraints,omitempty"`
	Affinities  []Affinity        `json:"affinities,omitempty"`
	Publish     *Publish          `json:"publish,omitempty"`
	Reduce      *Reduce           `json:"reduce,omitempty"`
	Multiregion *Multiregion      `json:"multiregion,omitempty"`
	Periodic    *Periodic         `json:"periodic,omitempty"`
	Trigger     *Trigger          `json:"trigger,omitempty"`
}

// Splits reports whether the partitions of a run come of a listing of its inputs: where there is a split, and where outputs of
// earlier runs are to be taken over, which have read the same.
func (j *Job) Splits() bool { return j.Split != nil || j.Reuse && j.Type != JobOps }

// Values of the job's enumerations.
const (
	JobBatch = "batch"
	JobOps   = "ops"

	IsolationPartition = "partition"
	IsolationRun       = "run"

	NetworkNone   = "none"
	NetworkHost   = "host"
	NetworkBridge = "bridge"

	MergeUnion  = "union"
	MergeConcat = "concat"
	MergeNone   = "none"

	ConflictError  = "error"
	ConflictRename = "rename"
	ConflictLast   = "last"

	BackoffExponential = "exponential"
	BackoffConstant    = "constant"
)

// MaxPartitions is the largest number of partitions of a run.
const MaxPartitions = 10_000_000

// MaxLargest bounds how many partitions of a run are known as far larger than the others, and are placed first.
const MaxLargest = 1024

// Input is a named source of files, mounted at a path of the tree.
type Input struct {
	Name   string `json:"name"`
	Source string `json:"source"` // a URL
	Mount  string `json:"mount"`  // absolute, clean, no trailing slash
}

// Parallelism bounds how many partitions of a run are under way at once.
// Exactly one field is set.
type Parallelism struct {
	Constant    int     `json:"constant,omitempty"`
	Coefficient float64 `json:"coefficient,omitempty"` // times eligible nodes, rounded down, at least 1
}

// Output is a directory that a task fills.
type Output struct {
	Name       string `json:"name"`
	Path       string `json:"path"`        // absolute, clean
	Merge      string `json:"merge"`       // MergeUnion, MergeConcat or MergeNone
	OnConflict string `json:"on_conflict"` // ConflictError, ConflictRename or ConflictLast
}

// Retry says how often and when a partition that failed is tried again.
type Retry struct {
	Attempts  int      `json:"attempts"` // tries in all, 1..100
	Delay     Duration `json:"delay"`
	Backoff   string   `json:"backoff"`
	MaxDelay  Duration `json:"max_delay"`
	OtherNode bool     `json:"other_node"` // prefer a node that did not fail it
}

// Failure says what failed partitions mean for the run.
type Failure struct {
	Tolerate  Threshold    `json:"tolerate"`             // more failed than this: the verdict is failed
	StopAfter *Threshold   `json:"stop_after,omitempty"` // past this the rest is cancelled
	OnExit    []ExitPolicy `json:"on_exit,omitempty"`
}

// ExitPolicy is what given exit codes lead to.
type ExitPolicy struct {
	Codes  []int  `json:"codes"`  // 0..255
	Action string `json:"action"` // one of the Action constants
}

// Actions of an ExitPolicy.
const (
	ActionRetry         = "retry"
	ActionFailPartition = "fail_partition"
	ActionFailJob       = "fail_job"
	ActionIgnore        = "ignore" // counts as succeeded
)

// Constraint is a condition that a node must meet.
type Constraint struct {
	Attribute string `json:"attribute"` // "${node.…}"
	Operator  string `json:"operator"`
	Value     string `json:"value"`
}

// Affinity is a condition that a node had better meet.
type Affinity struct {
	Constraint
	Weight int `json:"weight"` // -100..100
}

// Publish says where the merged result is written.
type Publish struct {
	To string `json:"to"`
}

// Reduce is a task over the merged outputs.
type Reduce struct {
	Name    string   `json:"name"`
	Task    Task     `json:"task"`
	Outputs []Output `json:"outputs,omitempty"`
}

// Reducing is the job as its reduce sees it: with that task and its outputs, one
// partition, and the job's outputs, merged, as inputs without a source.
func (j *Job) Reducing() *Job {
	is := *j
	is.Task, is.Outputs = j.Reduce.Task, j.Reduce.Outputs
	is.Count, is.Split, is.Parallelism, is.Reduce, is.Publish, is.Reuse = 1, nil, nil, nil, nil, false
	is.Inputs = nil
	for _, o := range j.Outputs {
		is.Inputs = append(is.Inputs, Input{Name: o.Name, Mount: o.Path})
	}
	return &is
}

// Results are the outputs of a result: the job's, and those of its reduce, which are of one execution and as it left them.
func (j *Job) Results() []Output {
	all := append([]Output(nil), j.Outputs...)
	if j.Reduce == nil {
		return all
	}
	for _, o := range j.Reduce.Outputs {
		o.Merge, o.OnConflict = MergeUnion, ConflictError
		all = append(all, o)
	}
	return all
}

// Multiregion spreads a run over regions.
type Multiregion struct {
	Regions     []RegionCount `json:"regions"`
	Unreachable string        `json:"unreachable"`
}

// RegionCount is one region's share of a count.
type RegionCount struct {
	Name  string `json:"name"`
	Count int    `json:"count,omitempty"`
}

// Periodic runs a job on a schedule.
type Periodic struct {
	Cron            string `json:"cron"`
	TimeZone        string `json:"time_zone,omitempty"`
	ProhibitOverlap bool   `json:"prohibit_overlap,omitempty"`
}

// Trigger runs a job when inputs change.
type Trigger struct {
	OnChange []string `json:"on_change"`
	Poll     Duration `json:"poll"`
}
