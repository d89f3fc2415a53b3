package agent

import (
	"sync"
	"time"

	metrics "github.com/hashicorp/go-metrics"
	prom "github.com/hashicorp/go-metrics/prometheus"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/sheaf"
)

// What the state says, read when it is asked for. Nothing is labelled by run or
// partition, so that a million of either make no more series.
var (
	metricRuns       = prometheus.NewDesc("sheaf_runs", "Runs that are kept, by status.", []string{"status"}, nil)
	metricPartitions = prometheus.NewDesc("sheaf_partitions", "Partitions of the runs that are kept, by state. Those that run count as assigned.", []string{"state"}, nil)
	metricRunning    = prometheus.NewDesc("sheaf_partitions_running", "Partitions that clients report running; on the leader.", nil, nil)
	metricRate       = prometheus.NewDesc("sheaf_partitions_per_second", "Partitions ended a second lately, of all runs; on the leader.", nil, nil)
)

// stateServer is what the collector needs of a server.
type stateServer interface {
	Snapshot() *state.Snapshot
	Measured(sheaf.RunID) (running int, rate float64)
}

// stateCollector counts runs and partitions of a snapshot.
type stateCollector struct{ from stateServer }

// Describe implements prometheus.Collector.
func (stateCollector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{metricRuns, metricPartitions, metricRunning, metricRate} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (c stateCollector) Collect(out chan<- prometheus.Metric) {
	runs := map[sheaf.RunStatus]int{
		sheaf.RunPending: 0, sheaf.RunSplitting: 0, sheaf.RunRunning: 0, sheaf.RunReducing: 0, sheaf.RunMerging: 0, sheaf.RunSucceeded: 0, sheaf.RunFailed: 0, sheaf.RunCancelled: 0,
	}
	var all sheaf.PartitionCounts
	running, rate := 0, 0.0
	for r := range c.from.Snapshot().Runs() {
		runs[r.Status]++
		p := r.Counts()
		all.Pending += p.Pending
		all.Assigned += p.Assigned + p.Running
		all.Succeeded += p.Succeeded
		all.Failed += p.Failed
		all.Cancelled += p.Cancelled
		all.Reused += p.Reused
		if !r.Status.Terminal() {
			n, perSecond := c.from.Measured(r.ID)
			running, rate = running+n, rate+perSecond
		}
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	for status, n := range runs {
		gauge(metricRuns, float64(n), string(status))
	}
	for state, n := range map[sheaf.PartitionState]int{
		sheaf.PartitionPending: all.Pending, sheaf.PartitionAssigned: all.Assigned, sheaf.PartitionSucceeded: all.Succeeded,
		sheaf.PartitionFailed: all.Failed, sheaf.PartitionCancelled: all.Cancelled, sheaf.PartitionReused: all.Reused,
	} {
		gauge(metricPartitions, float64(n), state.String())
	}
	gauge(metricRunning, float64(running))
	gauge(metricRate, rate)
}

// raftMetricsKept is how long a number of raft's or of memberlist's is shown after it was last set.
const raftMetricsKept = 10 * time.Minute

// libraryMetrics are those that raft and memberlist keep of themselves, sheaf_raft_… and
// sheaf_memberlist_…. These libraries have one place for the whole process, and so have we.
var libraryMetrics = sync.OnceValue(func() prometheus.Collector {
	sink, err := prom.NewPrometheusSinkFrom(prom.PrometheusOpts{Expiration: raftMetricsKept, Registerer: prometheus.NewRegistry()})
	if err != nil {
		panic("register in an empty registry: " + err.Error())
	}
	conf := metrics.DefaultConfig("sheaf")
	conf.EnableHostname, conf.EnableRuntimeMetrics = false, false
	if _, err := metrics.NewGlobal(conf, sink); err != nil {
		panic("start metrics with one sink: " + err.Error())
	}
	return sink
})
