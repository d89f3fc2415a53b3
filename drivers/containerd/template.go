package containerd

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"strings"

	client "github.com/containerd/containerd"
	"github.com/containerd/containerd/containers"
	"github.com/containerd/containerd/contrib/seccomp"
	"github.com/containerd/containerd/oci"
	"github.com/opencontainers/image-spec/identity"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// template is what all containers of an image have in common. It is read from the
// image once, in Prepare, so that a container's making asks containerd for nothing, and never changed.
type template struct {
	image      string // its name
	layers     string // the snapshot that a container's own is put on
	spec       specs.Spec
	entrypoint []string
	cmd        []string
}

// describe reads an unpacked image. ctx holds a lease.
func describe(ctx context.Context, conn *client.Client, img client.Image) (*template, error) {
	image, err := imageConfig(ctx, img)
	if err != nil {
		return nil, err
	}
	conf := image.Config
	diffs, err := img.RootFS(ctx)
	if err != nil {
		return nil, fmt.Errorf("list its layers: %w", err)
	}
	t := &template{image: img.Name(), layers: identity.ChainID(diffs).String(), entrypoint: conf.Entrypoint, cmd: conf.Cmd}
	// The image's user may be a name: its files are looked at for the numbers.
	view := "sheaf-view-" + rand.Text()
	snapshots := conn.SnapshotService(snapshotter)
	files, err := snapshots.View(ctx, view, t.layers)
	if err != nil {
		return nil, fmt.Errorf("look at its files: %w", err)
	}
	defer func() { _ = snapshots.Remove(context.WithoutCancel(ctx), view) }() // otherwise it goes with the lease
	others, err := forOthers(ctx, image.Architecture, files)
	if err != nil {
		return nil, err
	}
	spec, err := oci.GenerateSpec(ctx, conn, &containers.Container{ID: "template", Snapshotter: snapshotter, SnapshotKey: view},
		oci.WithImageConfigArgs(img, nil),
		oci.WithRootFSReadonly(),
		oci.WithCapabilities(nil),
		oci.WithNoNewPrivileges,
		oci.WithHostname("sheaf"),
		seccomp.WithDefaultProfile(), // after the capabilities, on which it depends
	)
	if err != nil {
		return nil, invalid("its user cannot be found: "+err.Error(), "name one that the image's /etc/passwd has, or give numbers")
	}
	narrow(spec.Linux.Seccomp, others)
	t.spec = *spec
	process := *spec.Process
	process.Rlimits = descriptors(process.Rlimits)
	t.spec.Process = &process
	return t, nil
}

// mostFiles bounds the descriptors of a process in a container, as other tools that run
// containers do. What 1024 allow is too few for many programs, and what more costs is counted as the container's memory.
const mostFiles = 1 << 20

// descriptors lets a container open as many files as this process may, up to mostFiles: nobody may give
// more than is his.
func descriptors(limits []specs.POSIXRlimit) []specs.POSIXRlimit {
	n := uint64(mostFiles)
	var ours unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &ours) == nil {
		n = min(n, ours.Max)
	}
	kept := slices.DeleteFunc(slices.Clone(limits), func(l specs.POSIXRlimit) bool { return l.Type == "RLIMIT_NOFILE" })
	return append(kept, specs.POSIXRlimit{Type: "RLIMIT_NOFILE", Soft: n, Hard: n})
}

// runnable refuses a config that leaves nothing to run.
func (t *template) runnable(conf config) error {
	if len(t.args(conf)) == 0 {
		return invalid("the image "+conf.Image+" does not say what to run", "give entrypoint or args")
	}
	return nil
}

// args is the command line: as with other tools, an entrypoint of the job's own comes without
// the image's command.
func (t *template) args(conf config) []string {
	if len(conf.Entrypoint) > 0 {
		return append(slices.Clone(conf.Entrypoint), conf.Args...)
	}
	if len(conf.Args) > 0 {
		return append(slices.Clone(t.entrypoint), conf.Args...)
	}
	return append(slices.Clone(t.entrypoint), t.cmd...)
}

// env is the image's environment with the task's over it.
func (t *template) env(given []string) []string {
	own := make(map[string]bool, len(given))
	for _, e := range given {
		name, _, _ := strings.Cut(e, "=")
		own[name] = true
	}
	out := make([]string, 0, len(t.spec.Process.Env)+len(given))
	for _, e := range t.spec.Process.Env {
		if name, _, _ := strings.Cut(e, "="); !own[name] {
			out = append(out, e)
		}
	}
	return append(out, given...)
}
