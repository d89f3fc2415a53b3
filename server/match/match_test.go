package match_test

import (
	"strings"
	"testing"

	"github.com/sheaf-run/agent/server/match"
	"github.com/sheaf-run/agent/sheaf"
)

func node(change ...func(*sheaf.Node)) *sheaf.Node {
	n := &sheaf.Node{
		ID: "n1", Name: "alpha", Region: "here", Datacenter: "eu-1", Class: "gpu", Status: sheaf.NodeReady, Eligible: true,
		Resources:  sheaf.Resources{CPU: 4000, Memory: 24684092 << 10, Disk: 1 << 40, Pids: 100},
		Attributes: map[string]string{"cpu.arch": "amd64", "cpu.cores": "16", "kernel.version": "6.10.0-28-amd64", "memory.bytes": "17179869184", "zones": "a, b,c", "release": "1.2.0-rc1"},
		Drivers:    []sheaf.NodeDriver{{Name: "exec", Healthy: true, Attributes: map[string]string{"version": "2.0"}}, {Name: "sick"}},
	}
	for _, c := range change {
		c(n)
	}
	return n
}

func job(change ...func(*sheaf.Job)) *sheaf.Job {
	j := &sheaf.Job{Task: sheaf.Task{Driver: "exec"}}
	for _, c := range change {
		c(j)
	}
	return j
}

// TestConditions: each operator, on numbers, sizes, versions and text, and on what is not there.
func TestConditions(t *testing.T) {
	for _, c := range []struct {
		attribute, operator, value string
		met                        bool
	}{
		{"node.id", "=", "n1", true},
		{"node.name", "!=", "alpha", false},
		{"node.class", "regexp", "^(gpu|tpu)$", true},
		{"node.class", "regexp", "(", false},
		{"node.datacenter", "=", "eu-1", true},
		{"node.region", "=", "there", false},
		{"node.attr.cpu.cores", ">=", "9", true}, // as text "16" comes first
		{"node.attr.cpu.cores", "=", "16.0", true},
		{"node.attr.cpu.cores", "<", "16", false},
		{"node.attr.cpu.cores", "<=", "16", true},
		{"node.attr.memory.bytes", ">=", "16GiB", true},
		{"node.attr.memory.bytes", ">", "16GiB", false},
		{"node.attr.kernel.version", ">=", "6.9", true}, // as a number 6.10 is less
		{"node.attr.kernel.version", "=", "6.10", true},
		{"node.attr.kernel.version", "<", "6.10.1", true},
		{"node.attr.release", "<", "1.2.0", true},
		{"node.attr.release", ">", "1.2.0-beta2", true},
		{"node.attr.release", ">", "v1.1.9", true},
		{"node.attr.cpu.arch", "<", "arm64", true},
		{"node.attr.zones", "set_contains", "c,a", true},
		{"node.attr.zones", "set_contains", "a,d", false},
		{"node.driver.exec", "=", "true", true},
		{"node.driver.sick", "=", "true", false},
		{"node.driver.exec.version", ">=", "1.9", true},
		{"node.attr.nope", "=", "", false},
		{"node.attr.nope", "!=", "x", true},
		{"node.attr.nope", "regexp", ".*", false},
		{"node.driver.nope", "=", "false", false},
		{"node.id", "=", "${node.name}", false},
		{"node.name", "=", "${node.name}", true},
		{"node.name", "!=", "${node.attr.nope}", false}, // there is nothing to differ from
	} {
		x := sheaf.Constraint{Attribute: "${" + c.attribute + "}", Operator: c.operator, Value: c.value}
		r := match.Of(job(func(j *sheaf.Job) { j.Constraints = []sheaf.Constraint{x} }))
		for range 2 { // the second time by what it remembers
			code, text := r.Lacks(node())
			if (code == "") != c.met {
				t.Errorf("%s %s %q: %s %s", c.attribute, c.operator, c.value, code, text)
			}
			if code != "" && (code != match.Constraint || !strings.Contains(text, c.attribute)) {
				t.Errorf("%s %s %q is refused by %s: %s", c.attribute, c.operator, c.value, code, text)
			}
		}
	}
}

func TestLacks(t *testing.T) {
	reads := func(source string) func(*sheaf.Job) {
		return func(j *sheaf.Job) { j.Inputs = []sheaf.Input{{Name: "in", Source: source}} }
	}
	for _, c := range []struct {
		name string
		job  func(*sheaf.Job)
		code match.Code
		text string
	}{
		{"nothing", func(*sheaf.Job) {}, "", ""},
		{"any datacenter", func(j *sheaf.Job) { j.Datacenters = []string{"us", "*"} }, "", ""},
		{"a glob of datacenters", func(j *sheaf.Job) { j.Datacenters = []string{"us-*", "eu-*"} }, "", ""},
		{"another datacenter", func(j *sheaf.Job) { j.Datacenters = []string{"us-*", "eu"} }, match.Datacenter, `"eu-1"`},
		{"no driver", func(j *sheaf.Job) { j.Task.Driver = "x" }, match.NoDriver, `"x"`},
		{"a driver that is not well", func(j *sheaf.Job) { j.Task.Driver = "sick" }, match.Unhealthy, "no reason"},
		{"no module", func(j *sheaf.Job) { j.Task.Config = map[string]any{"module": "https://elsewhere/m.wasm"} }, match.NoFile, "cannot fetch the module by https://"},
		{"no archive", func(j *sheaf.Job) { j.Task.Config = map[string]any{"image": "oci-archive:car:///far/i.car#/i.tar"} }, match.NoFile, "/far/i.car for the image"},
		{"a module of the node's", func(j *sheaf.Job) { j.Task.Config = map[string]any{"module": "file:///far/m.wasm"} }, "", ""},
		{"an image of a registry", func(j *sheaf.Job) { j.Task.Config = map[string]any{"image": "example.org/x:1"} }, "", ""},
		{"no source", reads("file:///data/x"), match.NoSource, `/data/x of input "in"`},
		{"sizes for people", func(j *sheaf.Job) { j.Task.Resources.Memory = 1000 << 30 }, match.Memory, "needs 1000GiB of memory, the node has 23.5GiB"},
		{"pids", func(j *sheaf.Job) { j.Task.Resources.Pids = 101 }, match.Pids, "the node has 100"},
	} {
		code, text := match.Of(job(c.job)).Lacks(node())
		if code != c.code || !strings.Contains(text, c.text) {
			t.Errorf("%s: %s %q", c.name, code, text)
		}
	}
}

func TestPreference(t *testing.T) {
	r := match.Of(job(func(j *sheaf.Job) {
		for _, a := range []struct {
			value  string
			weight int
		}{{"gpu", 50}, {"cpu", 100}, {"gpu", -50}} {
			j.Affinities = append(j.Affinities, sheaf.Affinity{Constraint: sheaf.Constraint{Attribute: "${node.class}", Operator: "=", Value: a.value}, Weight: a.weight})
		}
	}))
	if got := r.Preference(node()); got != 0 {
		t.Errorf("a node that is liked as much as not is preferred by %v", got)
	}
	if got := r.Preference(node(func(n *sheaf.Node) { n.Class = "cpu" })); got != 0.5 {
		t.Errorf("of weights 100 of 200, the preference is %v", got)
	}
	if got := match.Of(job()).Preference(node()); got != 0 {
		t.Errorf("without affinities the preference is %v", got)
	}
}

func TestAble(t *testing.T) {
	nodes := []*sheaf.Node{node(), node(func(n *sheaf.Node) { n.Status = sheaf.NodeDown }), node(func(n *sheaf.Node) { n.Eligible = false }), node(func(n *sheaf.Node) { n.Drivers = nil })}
	if got := match.Of(job()).Able(nodes); len(got) != 1 || got[0] != nodes[0] {
		t.Errorf("%d nodes are able", len(got))
	}
}

func FuzzConditions(f *testing.F) {
	f.Add("6.10.0-28-amd64", "6.9")
	f.Add("1e400", "-0")
	f.Add("99999999999.1.1.1.1.1.1", "v")
	f.Fuzz(func(t *testing.T, has, wants string) {
		n := node(func(n *sheaf.Node) { n.Attributes = map[string]string{"x": has, "version": has} })
		for _, name := range []string{"x", "version"} {
			met := map[string]bool{}
			for _, op := range []string{"<", "=", ">", "!=", "regexp", "set_contains"} {
				r := match.Of(job(func(j *sheaf.Job) {
					j.Constraints = []sheaf.Constraint{{Attribute: "${node.attr." + name + "}", Operator: op, Value: sheaf.EscapeTemplate(wants)}}
				}))
				code, _ := r.Lacks(n)
				met[op] = code == ""
			}
			if met["="] == met["!="] || strings.Contains(wants, "$") {
				if !strings.Contains(wants, "$") {
					t.Fatalf("%q and %q are equal and different", has, wants)
				}
				return
			}
			one := 0
			for _, op := range []string{"<", "=", ">"} {
				if met[op] {
					one++
				}
			}
			if one != 1 {
				t.Fatalf("%q and %q: %v", has, wants, met)
			}
		}
	})
}

// TestRemoteInputs: which node reads what lies elsewhere is said by the patterns of its configuration.
func TestRemoteInputs(t *testing.T) {
	n := &sheaf.Node{Sources: []sheaf.NodeSource{
		{Scheme: "s3", Root: "logs-*", Shared: true}, {Scheme: "file", Root: "/data"}, {Scheme: "https", Root: "*.Example.org", Shared: true}, {Scheme: "https", Root: "127.0.0.1", Shared: true},
	}}
	for url, want := range map[string]bool{
		"s3://logs-1/x": true, "s3://other/x": false, "https://a.example.org/x": true, "https://A.EXAMPLE.org:8443/x#unpack": true, "https://a.example.org./x": true,
		"https://example.org/x": false, "https://127.0.0.1:1234/x": true, "https://127.0.0.2/x": false, "ipfs://logs-1/x": false, "car:///data/x.car#/d": true, "car:///other/x.car": false,
	} {
		in := match.Inputs(&sheaf.Job{Inputs: []sheaf.Input{{Name: "in", Source: url}}})
		if _, got := in[0].SourceOf(n); got != want {
			t.Errorf("%s: %v, want %v", url, got, want)
		}
	}
}
