package acl_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/sheaf-run/agent/internal/acl"
	"github.com/sheaf-run/agent/sheaf"
)

func parse(t *testing.T, src string) *acl.Policy {
	t.Helper()
	p, err := acl.Parse("p", []byte(src))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestAllows: the closest pattern decides, of equal ones a deny wins, and what nobody grants nobody has.
func TestAllows(t *testing.T) {
	const team = `namespace "team-*" { policy = "write" }
namespace "team-secret" { policy = "deny" }
namespace "*" { policy = "read" }
namespace "*-x" { capabilities = ["submit-jobs"] }
node { policy = "read" }`
	for _, c := range []struct {
		policies []string
		cap      acl.Capability
		ns       string
		want     bool
	}{
		{[]string{team}, acl.SubmitJobs, "team-a", true},
		{[]string{team}, acl.ManageSecrets, "team-a", true},
		{[]string{team}, acl.ReadJobs, "team-secret", false},
		{[]string{team}, acl.ReadJobs, "other", true},
		{[]string{team}, acl.ReadOutputs, "other", true},
		{[]string{team}, acl.SubmitJobs, "other", false},
		{[]string{team}, acl.SubmitJobs, "other-x", true},
		{[]string{team}, acl.ReadJobs, "other-x", false},
		{[]string{team}, acl.ReadNodes, "", true},
		{[]string{team}, acl.WriteNodes, "", false},
		{[]string{team}, acl.ReadAgent, "", false},
		{[]string{team}, acl.Anyone, "", true},
		{[]string{team}, acl.ManageACL, "", false},
		{nil, acl.ReadJobs, "default", false},
		{nil, acl.Anyone, "", true},
		{[]string{`operator { policy = "write" }`}, acl.Operate, "", true},
		{[]string{`operator { policy = "write" }`}, acl.ManageNamespaces, "", true},
		{[]string{`operator { policy = "write" }`}, acl.ManageACL, "", false},
		{[]string{`operator { policy = "write" }`, `operator { policy = "deny" }`}, acl.Operate, "", false},
		{[]string{`namespace "a" { policy = "write" }`, `namespace "a" { policy = "deny" }`}, acl.ReadJobs, "a", false},
		{[]string{`namespace "a" { policy = "read" }`, `namespace "a" { capabilities = ["submit-jobs"] }`}, acl.SubmitJobs, "a", true},
		{[]string{`namespace "a*" { policy = "write" }`, `namespace "*a" { policy = "deny" }`}, acl.ReadJobs, "aa", false},
		{[]string{`namespace "a*" { policy = "deny" }`, `namespace "ab*" { policy = "read" }`}, acl.ReadJobs, "abc", true},
		{[]string{`namespace "a*b*c" { policy = "read" }`}, acl.ReadJobs, "a-b-b-c", true},
		{[]string{`namespace "a*b*c" { policy = "read" }`}, acl.ReadJobs, "a-c-b", false},
		{[]string{`namespace "aba*aba" { policy = "read" }`}, acl.ReadJobs, "aba", false},
		{[]string{"\ufeffnode {\r\n  policy = \"read\" # ok\r\n}\r\n"}, acl.ReadNodes, "", true},
	} {
		var all []*acl.Policy
		for _, src := range c.policies {
			all = append(all, parse(t, src))
		}
		if got := acl.Join(all...).Allows(c.cap, c.ns); got != c.want {
			t.Errorf("%q in %q: %v with %s", c.cap, c.ns, got, c.policies)
		}
	}
	var nobody *acl.ACL
	if nobody.Allows(acl.ReadJobs, "default") || nobody.AllowsSomewhere(acl.ReadJobs) || nobody.Sees("default") || !nobody.Allows(acl.Anyone, "") {
		t.Error("no ACL is not one that allows nothing")
	}
	a := acl.Join(parse(t, team))
	if !a.AllowsSomewhere(acl.SubmitJobs) || a.AllowsSomewhere(acl.ReadAgent) || a.Sees("team-secret") || !a.Sees("x") || a.IsManagement() {
		t.Error("somewhere and sees are wrong")
	}
	for _, c := range append(acl.Global, acl.Namespaced...) {
		if !acl.Management.Allows(c, "any") {
			t.Errorf("management lacks %s", c)
		}
	}
}

// TestMistakes: each is refused with its place and what to do.
func TestMistakes(t *testing.T) {
	for _, c := range []struct{ src, says, hint string }{
		{``, "is empty", "write blocks"},
		{`namespace "a" {`, "p:1:", ""},
		{`namespcae "a" { policy = "read" }`, `p:1:1: there is no block "namespcae"`, `did you mean "namespace"?`},
		{`namespace { policy = "read" }`, "has one label", "name the namespace"},
		{`namespace "../x" { policy = "read" }`, "no name", "names have"},
		{`namespace "" { policy = "read" }`, "0 bytes", ""},
		{`namespace "` + strings.Repeat("a", 300) + `" { policy = "read" }`, "300 bytes", ""},
		{`namespace "a**" { policy = "read" }`, "**", ""},
		{`namespace "*a*a*a*a*" { policy = "read" }`, "more than 4", ""},
		{"\n  node { policy = \"raed\" }", `p:2:20: there is no policy "raed"`, `did you mean "read"?`},
		{`node "x" { policy = "read" }`, "no label", ""},
		{`node { polcy = "read" }`, `no argument "polcy"`, `did you mean "policy"?`},
		{`node { }`, "grants nothing", "give policy"},
		{`node { policy = ["read"] }`, "no text", ""},
		{`node { capabilities = "read-nodes" }`, "no list", ""},
		{`node { capabilities = [["read-nodes"]] }`, "no text", ""},
		{`node { capabilities = ["read-jobs"] }`, `block node has no capability "read-jobs"`, "known: read-nodes, write-nodes, deny"},
		{`operator { capabilities = ["manage-acl"] }`, "no capability", ""},
		{"node {\nx { }\n}", `p:2:1: block "x"`, ""},
		{`node { policy = "read" } ` + "\n" + `node { policy = "read" }`, "p:2:1: block node comes twice", "join"},
		{"node {\npolicy = \"read\"\npolicy = \"read\"\n}", "p:3:1", ""},
		{`node { policy = true }`, "no text", ""},
		{`node { policy = null }`, "no text", ""},
		{`node { capabilities = [null] }`, "no text", ""},
		{`policy = "read"`, "no block", "known: "},
		{`node { policy = read }`, "p:1:17", "double quotes"},
		{`node { policy = file("/etc/shadow") }`, `p:1:21: "("`, "literal"},
		{`node { policy = "${env}" }`, `"${"`, ""},
		{`node { policy = 1 + 1 }`, `cannot stand`, ""},
		{`node { policy = [for x in y : x] }`, `cannot stand`, ""},
		{`node { policy = <<X` + "\nread\nX\n}", `cannot stand`, ""},
		{strings.Repeat("(", 100_000)[:40_000], `cannot stand`, ""},
		{`node { policy = ` + strings.Repeat("[", 40_000), "nested too deeply", ""},
		{`node { policy = ` + strings.Repeat("!", 40_000), "cannot stand", ""},
		{strings.Repeat("x {", 10_000), "nested too deeply", ""},
		{strings.Repeat("a", acl.MaxRules+1), "bytes", "several policies"},
		{strings.Repeat("node { policy = \"read\" }\n", 300), "", "several policies"},
		{"node { policy = \"re\x00ad\" }", "no UTF-8", ""},
		{"node { policy = \"re\xffad\" }", "no UTF-8", ""},
	} {
		_, err := acl.Parse("p", []byte(c.src))
		var ours *sheaf.Error
		if !errors.As(err, &ours) || ours.Field != "rules" {
			t.Errorf("%.60q: %v", c.src, err)
			continue
		}
		if hint := strings.Replace(c.hint, "literal", "a policy holds", 1); !strings.Contains(ours.Error(), c.says) || !strings.Contains(ours.Hint, hint) {
			t.Errorf("%.60q:\n got %.300s\n   %s\nwant %s\n   %s", c.src, ours.Error(), ours.Hint, c.says, hint)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		`namespace "team-*" { policy = "write" }`, `node { capabilities = ["read-nodes"] }`, `operator { policy = "deny" }`,
		"node {\n policy = \"read\" # c\n}\n", `namespace "${x}" {}`, `node { policy = "\u0000" }`, "/* x */ agent { policy=\"read\" }",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, src string) {
		p, err := acl.Parse("p", []byte(src))
		if err != nil {
			if sheaf.ClassOf(err) == sheaf.Internal {
				t.Errorf("an error without a class: %v", err)
			}
			return
		}
		if acl.Join(p).Allows(acl.ManageACL, "") {
			t.Error("a policy grants what management tokens have alone")
		}
	})
}
