package sheaf

import "time"

// Topic groups events.
type Topic string

// The topics.
const (
	TopicRun       Topic = "run"       // runs come, change, end and go
	TopicPartition Topic = "partition" // partitions are placed and end, in ranges
	TopicNode      Topic = "node"      // clients come, change and are lost
	TopicServer    Topic = "server"    // servers join and leave the cluster
	TopicOperator  Topic = "operator"  // settings of the cluster
	TopicNamespace Topic = "namespace" // namespaces come and go
	TopicACL       Topic = "acl"       // policies and tokens, without their content
	TopicSecret    Topic = "secret"    // secrets, without their content
)

// Topics are all topics, in the order in which events of one entry come.
var Topics = []Topic{TopicRun, TopicPartition, TopicNode, TopicServer, TopicOperator, TopicNamespace, TopicACL, TopicSecret}

// Event is something that an entry of the log did. Every server derives the same events of an
// entry. All fields are always there in the JSON form, so that a filter may ask for any.
type Event struct {
	Index uint64    `json:"index"` // of the entry
	Time  time.Time `json:"time"`  // cluster time at the entry
	Topic Topic     `json:"topic"`
	Type  string    `json:"type"` // what happened, as in "RunStatusChanged"
	Key   string    `json:"key"`  // of what it is about: a run's or node's ID, a name

	Namespace  string `json:"namespace"`  // of the run; "" where there is none
	Job        string `json:"job"`        // the run's
	Node       NodeID `json:"node"`       // that it happened on
	Generation int    `json:"generation"` // of the run
	Was        string `json:"was"`        // the status before
	Status     string `json:"status"`     // the status after
	Count      int    `json:"count"`      // how many partitions
	Partitions Ranges `json:"partitions"` // which; where More is set, the first of them
	More       bool   `json:"more"`
	Reason     string `json:"reason"`
}
