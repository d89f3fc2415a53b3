package httpapi

import (
	"github.com/sheaf-run/agent/api"
	"github.com/sheaf-run/agent/sheaf"
)

// endpoints is every endpoint there is. What a caller needs, and where it must hold it, stand in
// the row, so that none can be added without.
var endpoints = []endpoint{
	typed("GET", "/v1/jobs", ReadJobs, inList, "List runs", 0, (*API).listRuns),
	typed("PUT", "/v1/jobs", SubmitJobs, inBody, "Submit a job", maxJobBody, (*API).submit),
	typed("POST", "/v1/jobs/parse", ReadJobs, inList, "Read a jobspec", maxSourceBody, (*API).parse),
	typed("POST", "/v1/jobs/plan", ReadJobs, inBody, "Say what would hold a job up", maxJobBody, (*API).plan),
	typed("GET", "/v1/job/{job}", ReadJobs, inRun, "A run with its job", 0, (*API).getRun),
	typed("DELETE", "/v1/job/{job}", SubmitJobs, inRun, "Forget a run that is over, and its outputs", 0, (*API).deleteRun),
	typed("GET", "/v1/job/{job}/summary", ReadJobs, inRun, "How a run goes", 0, (*API).summary),
	typed("GET", "/v1/job/{job}/partitions", ReadJobs, inRun, "List partitions", 0, (*API).listPartitions),
	raw("GET", "/v1/job/{job}/grid", ReadJobs, inRun, "One byte a partition: '0' plus its state's number", 0, bytesAs("application/octet-stream"), (*API).grid),
	typed("GET", "/v1/job/{job}/errors", ReadJobs, inRun, "Failures grouped by message", 0, (*API).runErrors),
	typed("GET", "/v1/job/{job}/explain", ReadJobs, inRun, "Why a run or partition is where it is", 0, (*API).explain),
	typed("POST", "/v1/job/{job}/stop", SubmitJobs, inRun, "Cancel a run", maxSmallBody, (*API).stop),
	typed("PATCH", "/v1/job/{job}", SubmitJobs, inRun, "Change a run's priority, parallelism or hold", maxSmallBody, (*API).changeRun),
	typed("POST", "/v1/job/{job}/hold", SubmitJobs, inRun, "Place nothing more of a run; what runs goes on", maxSmallBody, (*API).hold),
	typed("POST", "/v1/job/{job}/release", SubmitJobs, inRun, "Go on with a run that is held", maxSmallBody, (*API).release),
	typed("POST", "/v1/job/{job}/retry", SubmitJobs, inRun, "Run partitions again", maxSmallBody, (*API).retry),
	raw("GET", "/v1/job/{job}/results", ReadOutputs, inRun, "The manifest of the merged result, NDJSON", 0, linesOf[sheaf.File](), (*API).results),
	raw("GET", "/v1/job/{job}/records", ReadOutputs, inRun, "What is kept of ended executions, NDJSON in partition order", 0, linesOf[api.Record](), (*API).records),
	raw("GET", "/v1/job/{job}/file", ReadOutputs, inRun, "The bytes of a file in a partition's output", 0, bytesAs("application/octet-stream"), (*API).file),
	raw("GET", "/v1/job/{job}/logs", ReadOutputs, inRun, "A partition's stdout or stderr", 0, bytesAs("application/octet-stream"), (*API).logs),
	typed("GET", "/v1/partition/{job}/{n}", ReadJobs, inRun, "One partition", 0, (*API).getPartition),
	raw("POST", "/v1/inputs/preview", PreviewFiles, inBody, "How the inputs of a job would be split, NDJSON", maxJobBody, linesOf[api.PreviewLine](), (*API).preview),
	typed("GET", "/v1/secrets", ReadSecrets, inList, "List secrets, without their values", 0, (*API).listSecrets),
	typed("POST", "/v1/secrets/reseal", Operate, everywhere, "Seal all secrets with the newest key", maxSmallBody, (*API).resealSecrets),
	typed("GET", "/v1/secret/{secret}", ReadSecrets, inBody, "One secret, without its value", 0, (*API).getSecret),
	typed("PUT", "/v1/secret/{secret}", ManageSecrets, inBody, "Store a secret, or change it", maxSmallBody, (*API).putSecret),
	typed("DELETE", "/v1/secret/{secret}", ManageSecrets, inBody, "Forget a secret", 0, (*API).deleteSecret),
	typed("GET", "/v1/evaluations", ReadJobs, inList, "List what the leader is about to place, and what it fails to", 0, (*API).listEvaluations),
	typed("GET", "/v1/nodes", ReadNodes, everywhere, "List nodes", 0, (*API).listNodes),
	typed("GET", "/v1/node/{node}", ReadNodes, everywhere, "One node", 0, (*API).getNode),
	typed("GET", "/v1/regions", ReadAgent, everywhere, "List regions", 0, (*API).regions),
	typed("GET", "/v1/agent/self", ReadAgent, everywhere, "This agent", 0, (*API).self),
	typed("GET", "/v1/agent/members", ReadAgent, everywhere, "The agents that gossip knows", 0, (*API).members),
	typed("GET", "/v1/agent/health", Anyone, everywhere, "Whether this agent can do its work", 0, (*API).health),
	typed("GET", "/v1/agent/state", ReadAgent, everywhere, "What this server has applied: index and digest", 0, (*API).state),
	typed("GET", "/v1/status/leader", ReadAgent, everywhere, "The leader's RPC address", 0, (*API).leader),
	typed("GET", "/v1/status/peers", ReadAgent, everywhere, "The voters' RPC addresses", 0, (*API).peers),
	typed("GET", "/v1/operator/keyring", ReadOperator, everywhere, "Which gossip keys the agents have", 0, (*API).keyring),
	typed("POST", "/v1/operator/keyring", Operate, everywhere, "Change the gossip keys of all agents", maxSmallBody, (*API).changeKeyring),
	raw("GET", "/v1/events", ReadJobs, inList, "What happens in the cluster: NDJSON, or server-sent events", 0, linesOf[api.EventLine](), (*API).events),
	raw("GET", "/v1/agent/monitor", ReadAgent, everywhere, "An agent's log as it grows", 0, linesOf[api.LogLine](), (*API).monitor),
	raw("GET", "/v1/metrics", ReadAgent, everywhere, "Metrics, in Prometheus' text format", 0, bytesAs("text/plain"), (*API).metrics),
	raw("GET", "/v1/openapi.json", Anyone, everywhere, "This document", 0, bytesAs("application/json"), (*API).openAPI),
	raw("GET", "/livez", Anyone, everywhere, "Whether this process answers", 0, bytesAs("text/plain"), (*API).livez),
	raw("GET", "/readyz", Anyone, everywhere, "Whether this agent can do its work", 0, bytesAs("text/plain"), (*API).readyz),
}
