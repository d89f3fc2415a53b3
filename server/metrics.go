package server

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/sheaf-run/agent/sheaf"
)

// What a server says of itself. Nothing is labelled by run or partition.
var (
	metricLeader  = prometheus.NewDesc("sheaf_server_leader", "1 while this server leads and takes work.", nil, nil)
	metricIndex   = prometheus.NewDesc("sheaf_server_applied_index", "Raft index of the newest entry applied here.", nil, nil)
	metricNodes   = prometheus.NewDesc("sheaf_server_nodes", "Nodes by status.", []string{"status"}, nil)
	metricRuns    = prometheus.NewDesc("sheaf_server_live_runs", "Runs that are not over.", nil, nil)
	metricAvoided = prometheus.NewDesc("sheaf_server_nodes_avoided", "Nodes to which others are preferred, since too much fails there; on the leader.", nil, nil)
	metricAside   = prometheus.NewDesc("sheaf_server_evaluations_laid_aside", "Evaluations that failed too often; on the leader.", nil, nil)
	metricResults = prometheus.NewDesc("sheaf_server_results_total", "Results answered in this term by outcome; on the leader.", []string{"outcome"}, nil)
)

// Metrics collects the server's own metrics.
func (s *Server) Metrics() prometheus.Collector { return collector{s} }

type collector struct{ s *Server }

// Describe implements prometheus.Collector.
func (collector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{metricLeader, metricIndex, metricNodes, metricRuns, metricAvoided, metricAside, metricResults} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(out chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v int, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v), labels...)
	}
	snap := c.s.store.Snapshot()
	runs := 0
	for range snap.LiveRuns() {
		runs++
	}
	nodes := map[sheaf.NodeStatus]int{}
	for n := range snap.Nodes() {
		nodes[n.Status]++
	}
	out <- prometheus.MustNewConstMetric(metricIndex, prometheus.GaugeValue, float64(snap.Index()))
	gauge(metricRuns, runs)
	for _, status := range []sheaf.NodeStatus{sheaf.NodeReady, sheaf.NodeDown} {
		gauge(metricNodes, nodes[status], string(status))
	}
	t := c.s.term.Load()
	if t == nil {
		gauge(metricLeader, 0)
		return
	}
	gauge(metricLeader, 1)
	gauge(metricAvoided, len(t.Avoided()))
	gauge(metricAside, len(t.Dead()))
	committed, failed := t.Results()
	out <- prometheus.MustNewConstMetric(metricResults, prometheus.CounterValue, float64(committed), "committed")
	out <- prometheus.MustNewConstMetric(metricResults, prometheus.CounterValue, float64(failed), "failed")
}
