package containerd

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/sheaf-run/agent/drivers/driverpb"
	"github.com/sheaf-run/agent/sheaf"
)

// cgroupRoot is where our containers' cgroups are, below each controller.
const cgroupRoot = "/sheaf-containers/"

// tmpSize is the room in a container's /tmp when it has no directory on disk for it. It
// counts as the container's memory, which bounds it if it is less.
const tmpSize = "size=1g"

// A container has one share of the cpu for each MHz, within what the kernel takes.
const (
	minShares = 2
	maxShares = 262144
)

// make says how one container is made.
func (t *template) make(conf config, start *driverpb.Start, id string) (*specs.Spec, error) {
	spec := t.base(start, id, mounts(start))
	spec.Process.Args, spec.Process.Env = t.args(conf), t.env(start.GetEnv())
	return spec, own(start, spec.Process.User)
}

// base is a container with these mounts and nothing to run yet.
func (t *template) base(start *driverpb.Start, id string, mounts []specs.Mount) *specs.Spec {
	spec, process, linux := t.spec, *t.spec.Process, *t.spec.Linux
	spec.Process, spec.Linux = &process, &linux
	linux.CgroupsPath = cgroupRoot + id
	linux.Resources = limits(*linux.Resources, start)
	spec.Mounts = append(slices.Clone(spec.Mounts), mounts...)
	if start.GetNetwork() == sheaf.NetworkHost {
		linux.Namespaces = slices.DeleteFunc(slices.Clone(linux.Namespaces), func(n specs.LinuxNamespace) bool { return n.Type == specs.NetworkNamespace })
		for _, file := range []string{"/etc/resolv.conf", "/etc/hosts"} {
			spec.Mounts = append(spec.Mounts, specs.Mount{Destination: file, Type: "bind", Source: file, Options: []string{"rbind", "ro"}})
		}
	}
	return &spec
}

func mounts(start *driverpb.Start) []specs.Mount {
	tmp := memoryTmp()
	if dir := start.GetWorkDir(); dir != "" {
		tmp = bind(dir, "/tmp", false)
	}
	list := []specs.Mount{tmp}
	for _, m := range start.GetMounts() {
		list = append(list, bind(m.GetSource(), m.GetTarget(), m.GetReadOnly()))
	}
	// What lies in another comes after it.
	slices.SortStableFunc(list, func(a, b specs.Mount) int { return strings.Compare(a.Destination, b.Destination) })
	return list
}

// memoryTmp is the /tmp of a container that has no directory on disk for it.
func memoryTmp() specs.Mount {
	return specs.Mount{Destination: "/tmp", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "nodev", "mode=1777", tmpSize}}
}

// bind never takes along what is mounted below the source: read-only would not hold for it.
func bind(source, target string, readOnly bool) specs.Mount {
	options := []string{"bind", "nosuid", "nodev", "rprivate"}
	if readOnly {
		options = append(options, "ro")
	}
	return specs.Mount{Destination: target, Type: "bind", Source: source, Options: options}
}

func limits(r specs.LinuxResources, start *driverpb.Start) *specs.LinuxResources {
	if n := start.GetMemoryBytes(); n > 0 {
		r.Memory = &specs.LinuxMemory{Limit: &n}
		if swapCounted() {
			r.Memory.Swap = &n // memory and swap together: no swap
		}
	}
	if n := start.GetPids(); n > 0 {
		r.Pids = &specs.LinuxPids{Limit: n}
	}
	if n := start.GetCpuMhz(); n > 0 {
		shares := uint64(min(max(n, minShares), maxShares))
		r.CPU = &specs.LinuxCPU{Shares: &shares}
	}
	return &r
}

// own gives the writable directories to the user that the image runs as, who has
// no capability to write elsewhere.
func own(start *driverpb.Start, user specs.User) error {
	if user.UID == 0 {
		return nil
	}
	give := func(dir, target string) error {
		if err := os.Lchown(dir, int(user.UID), int(user.GID)); err != nil {
			return fmt.Errorf("give %s to the image's user: %w", target, err)
		}
		return nil
	}
	if dir := start.GetWorkDir(); dir != "" {
		if err := give(dir, "/tmp"); err != nil {
			return err
		}
	}
	for _, m := range start.GetMounts() {
		if m.GetReadOnly() && !m.GetSecret() {
			continue
		}
		if err := give(m.GetSource(), m.GetTarget()); err != nil {
			return err
		}
		if !m.GetSecret() {
			continue
		}
		files, err := os.ReadDir(m.GetSource())
		if err != nil {
			return fmt.Errorf("give %s to the image's user: %w", m.GetTarget(), err)
		}
		for _, f := range files {
			if err := give(filepath.Join(m.GetSource(), f.Name()), m.GetTarget()); err != nil {
				return err
			}
		}
	}
	return nil
}

// explain makes of runc's words what a person can act on.
func explain(err error) string {
	text := err.Error()
	for _, mark := range []string{"OCI runtime create failed: ", "runc create failed: ", "unable to start container process: "} {
		if i := strings.LastIndex(text, mark); i >= 0 {
			text = text[i+len(mark):]
		}
	}
	return strings.TrimSuffix(text, ": unknown")
}
