// Package operations holds the tests that go through the documents as a person would: each command and each example,
// as written. docs/operations.md is read on machines with the guide's own names and addresses, every other page on a machine of
// its own. A machine is a set of namespaces, with its own /etc, /var/lib, /run and so on; the agents, containerd, the
// containers and what they say to each other are real. Stand-ins are systemctl, ssh and scp (testdata), the programs and files that
// examples name (testdata/pages), and what is elsewhere: a registry, web servers, a gateway of IPFS, buckets.
package operations
