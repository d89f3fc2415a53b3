package containerd

import "time"

// ContainerID is the name of an execution's container.
func (d *Driver) ContainerID(execution string) string { return d.containerID(execution) }

// Settle tells d whose containers are its own.
func Settle(d *Driver, stateDir string) error { return d.settle(stateDir) }

// KeepImages has a driver keep unused images for so long.
func KeepImages(d *Driver, keep time.Duration) { d.keep = keep }

// KeepContainers has a driver keep containers for so long for the next execution.
func KeepContainers(d *Driver, idle time.Duration) { d.idle = idle }

// Owner is what d's containers are labelled with.
func Owner(d *Driver) string { return d.owner }
