package sheaf

import "strings"

// A property of a node is what constraints and affinities may ask for:
// node.id, node.name, node.class, node.datacenter, node.region, node.attr.NAME as
// measured or configured, node.driver.NAME ("true" or "false": whether it is healthy)
// and node.driver.NAME.ATTRIBUTE.

// NodeProperties are those with a fixed name; names below "node.attr." and "node.driver." are open.
var NodeProperties = []string{"node.id", "node.name", "node.class", "node.datacenter", "node.region"}

// IsNodeProperty reports whether name may stand in the ${…} of a constraint.
func IsNodeProperty(name string) bool {
	for _, p := range NodeProperties {
		if p == name {
			return true
		}
	}
	for _, open := range [...]string{"node.attr.", "node.driver."} {
		if rest, ok := strings.CutPrefix(name, open); ok && rest != "" {
			return true
		}
	}
	return false
}

// Property is a property of the node, false where it has none of that name.
func (n *Node) Property(name string) (string, bool) {
	switch name {
	case "node.id":
		return string(n.ID), true
	case "node.name":
		return n.Name, true
	case "node.class":
		return n.Class, n.Class != ""
	case "node.datacenter":
		return n.Datacenter, true
	case "node.region":
		return n.Region, true
	}
	if attr, ok := strings.CutPrefix(name, "node.attr."); ok {
		v, ok := n.Attributes[attr]
		return v, ok
	}
	rest, ok := strings.CutPrefix(name, "node.driver.")
	if !ok {
		return "", false
	}
	driver, attr, wanted := strings.Cut(rest, ".")
	for _, d := range n.Drivers {
		if d.Name != driver {
			continue
		}
		if wanted {
			v, ok := d.Attributes[attr]
			return v, ok
		}
		if d.Healthy {
			return "true", true
		}
		return "false", true
	}
	return "", false
}
