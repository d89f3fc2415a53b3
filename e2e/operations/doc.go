// Package operations holds the test that goes through docs/operations.md as a person would: each of its
// commands, as written, on machines with the guide's own names and addresses. A machine is a set of namespaces,
// with its own /etc, /var/lib, /run and so on; the agents, containerd, the containers and what they say to
// each other are real. Stand-ins are systemctl, ssh and scp (testdata), and the registry that the image comes from.
package operations
