package httpapi

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/sheaf-run/agent/internal/acl"
	"github.com/sheaf-run/agent/sheaf"
)

// TestEventsAreFiltered: a caller gets the events that its policies let it read, and no others.
func TestEventsAreFiltered(t *testing.T) {
	var all []sheaf.Event
	for _, topic := range sheaf.Topics {
		for _, namespace := range []string{"team", "other"} {
			all = append(all, sheaf.Event{Topic: topic, Key: string(topic) + "/" + namespace, Namespace: namespace})
		}
	}
	for _, c := range []struct {
		name, policy, topics, namespace string
		want                            string // keys, or what the refusal says
	}{
		{"nothing", ``, "", "", "[]"},
		{"a namespace", `namespace "team" { policy = "read" }`, "run,partition,namespace", "", "[run/team partition/team namespace/team]"},
		{"nodes", `node { policy = "read" }`, "", "", "[node/team node/other]"},
		{"another topic", `node { policy = "read" }`, "acl", "", "lacks"},
		{"one of several", `node { policy = "read" }`, "node,server", "", "lacks"},
		{"one namespace", `namespace "*" { policy = "read" }`, "run", "other", "[run/other]"},
		{"all namespaces", `namespace "*" { policy = "read" }`, "run", "*", "[run/team run/other]"},
		{"denied", "namespace \"*\" { policy = \"read\" }\nnamespace \"team\" { policy = \"deny\" }", "run", "", "[run/other]"},
	} {
		who := acl.Join()
		if c.policy != "" {
			policy, err := acl.Parse("p", []byte(c.policy))
			if err != nil {
				t.Fatal(err)
			}
			who = acl.Join(policy)
		}
		ctx := context.WithValue(t.Context(), accessKey{}, access{acl: who})
		f, err := eventFilterOf(ctx, &eventParams{Topic: c.topics, Namespace: c.namespace})
		if err != nil {
			if sheaf.ClassOf(err) != sheaf.Denied || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: %v", c.name, err)
			}
			continue
		}
		got, err := f.take(all)
		if err != nil {
			t.Fatal(err)
		}
		keys := []string{}
		for _, e := range got {
			for _, topic := range f.topics { // a log is asked for these alone
				if e.Topic == topic {
					keys = append(keys, e.Key)
				}
			}
		}
		if fmt.Sprint(keys) != c.want {
			t.Errorf("%s: %v, want %s", c.name, keys, c.want)
		}
	}
	for _, topic := range sheaf.Topics {
		if topicNeeds[topic] == "" {
			t.Errorf("topic %q names no capability in topicNeeds: nobody gets its events", topic)
		}
	}
}
