// Package acl is who may do what: the capabilities, the policy language that grants them, and an
// immutable ACL made of policies that answers. It is pure; which policies a
// token has is the state's, and who asks is the HTTP layer's.
package acl

import (
	"slices"
	"strings"
)

// Capability is what a caller must hold to use an endpoint.
type Capability string

// The capabilities that hold everywhere. Anyone needs none; ManageACL comes with a management token alone.
const (
	Anyone           Capability = "anyone"
	ReadNodes        Capability = "read-nodes"
	WriteNodes       Capability = "write-nodes" // drain, eligibility, purge
	ReadAgent        Capability = "read-agent"  // members, metrics, an agent's own log
	WriteAgent       Capability = "write-agent" // join, leave, reload
	ReadOperator     Capability = "read-operator"
	Operate          Capability = "operate" // raft, autopilot, the gossip keyring
	ManageNamespaces Capability = "manage-namespaces"
	ManageACL        Capability = "manage-acl"
)

// The capabilities that are held in a namespace.
const (
	ReadJobs      Capability = "read-jobs"
	ReadOutputs   Capability = "read-outputs"   // results, records, files and logs
	SubmitJobs    Capability = "submit-jobs"    // submit, stop, retry, change and delete runs
	PreviewFiles  Capability = "preview-files"  // lists files on clients
	ReadSecrets   Capability = "read-secrets"   // their names, never their content
	ManageSecrets Capability = "manage-secrets" // put and delete them
)

// Global are the capabilities that no namespace bounds, weakest first.
var Global = []Capability{ReadNodes, WriteNodes, ReadAgent, WriteAgent, ReadOperator, Operate, ManageNamespaces, ManageACL}

// Namespaced are those that are held in a namespace, weakest first.
var Namespaced = []Capability{ReadJobs, ReadOutputs, SubmitJobs, PreviewFiles, ReadSecrets, ManageSecrets}

// InNamespace reports whether a capability is held in a namespace rather than everywhere.
func (c Capability) InNamespace() bool { return slices.Contains(Namespaced, c) }

// ACL is what a caller may do. It never changes; nil allows nothing but Anyone.
type ACL struct {
	management bool
	global     map[Capability]bool
	rules      []rule // for namespaces, the most specific first
}

// rule is what policies say of the namespaces that a pattern matches.
type rule struct {
	pattern string
	deny    bool
	grants  map[Capability]bool
}

// Management allows everything. It is also the ACL of every caller where ACLs are off.
var Management = &ACL{management: true}

// Allows reports whether the caller holds a capability; namespace is
// meant only for those that are held in one.
func (a *ACL) Allows(c Capability, namespace string) bool {
	switch {
	case c == Anyone:
		return true
	case a == nil:
		return false
	case a.management:
		return true
	case !c.InNamespace():
		return a.global[c]
	}
	for _, r := range a.rules {
		if match(r.pattern, namespace) {
			return !r.deny && r.grants[c]
		}
	}
	return false
}

// AllowsSomewhere reports whether the caller holds a capability at all: everywhere or in some
// namespace, whether or not that namespace exists.
func (a *ACL) AllowsSomewhere(c Capability) bool {
	if !c.InNamespace() || a == nil || a.management {
		return a.Allows(c, "")
	}
	return slices.ContainsFunc(a.rules, func(r rule) bool { return !r.deny && r.grants[c] })
}

// Sees reports whether the caller may know that a namespace exists: it holds some capability in it.
func (a *ACL) Sees(namespace string) bool {
	return slices.ContainsFunc(Namespaced, func(c Capability) bool { return a.Allows(c, namespace) })
}

// IsManagement reports whether the ACL allows everything.
func (a *ACL) IsManagement() bool { return a != nil && a.management }

// match reports whether a pattern with * for any text matches a name.
func match(pattern, name string) bool {
	head, rest, glob := strings.Cut(pattern, "*")
	if !glob {
		return pattern == name
	}
	if !strings.HasPrefix(name, head) {
		return false
	}
	name = name[len(head):]
	for {
		var middle string
		middle, rest, glob = strings.Cut(rest, "*")
		if !glob {
			return strings.HasSuffix(name, middle)
		}
		i := strings.Index(name, middle)
		if i < 0 {
			return false
		}
		name = name[i+len(middle):]
	}
}
