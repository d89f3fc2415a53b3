package containerd_test

import (
	"slices"
	"testing"
	"time"

	client "github.com/containerd/containerd"
	"github.com/containerd/containerd/images"
	"github.com/containerd/containerd/namespaces"

	"github.com/sheaf-run/agent/drivers/containerd"
	"github.com/sheaf-run/agent/drivers/driverpb"
	"github.com/sheaf-run/agent/drivers/drivertest"
)

// TestUnusedImages: what no run has used for long goes when something else is prepared. What is prepared stays, and
// what a container runs from, and what is not ours; what went is brought again.
func TestUnusedImages(t *testing.T) {
	conn, err := client.New(daemon.Address, client.WithTimeout(patience))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx := namespaces.WithNamespace(t.Context(), "sheaf")
	names := func() (list []string) {
		all, err := conn.ImageService().List(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, img := range all {
			list = append(list, img.Name)
		}
		return list
	}
	before := names()
	d := containerd.New()
	dir := t.TempDir()
	if _, err := d.Recover(t.Context(), &driverpb.RecoverRequest{StateDir: dir}); err != nil {
		t.Fatal(err)
	}
	// User makes images that differ, so that each has a digest of its own.
	prepare := func(archive string) (handle, name string) {
		t.Helper()
		known := names()
		got, err := d.Prepare(t.Context(), &driverpb.PrepareRequest{Run: "r", ConfigJson: config(t, archive, "true"), StateDir: dir})
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range names() {
			if !slices.Contains(known, n) {
				name = n
			}
		}
		return got.GetHandle(), name
	}
	runs, idle, held, next := busybox(t, "11"), busybox(t, "12"), busybox(t, "13"), busybox(t, "14")
	runsHandle, runsName := prepare(runs)
	idleHandle, idleName := prepare(idle)
	heldHandle, heldName := prepare(held)
	if _, _ = prepare(held); slices.Contains([]string{runsName, idleName, heldName}, "") {
		t.Fatalf("the images are called %q, %q and %q", runsName, idleName, heldName)
	}
	img, err := conn.ImageService().Get(ctx, idleName)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.ImageService().Create(ctx, images.Image{Name: "somebody.test/else:1", Target: img.Target}); err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, driver: d, stateDir: dir, image: runs, handle: runsHandle, session: drivertest.Open(t, d)}
	sleeping := n.sh("echo up; sleep 600")
	n.session.Start(sleeping)
	n.session.Printed(sleeping.GetExecution(), "up")
	for _, h := range []string{runsHandle, idleHandle, heldHandle} { // the last was prepared twice
		if err := d.Release(t.Context(), h); err != nil {
			t.Fatal(err)
		}
	}
	prepare(idle) // used again just now, and looked for a moment ago: nothing goes
	if err := d.Release(t.Context(), idleHandle); err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(names(), idleName) {
		t.Error("an image that was used just now is gone")
	}
	containerd.KeepImages(d, time.Nanosecond)
	_, nextName := prepare(next)
	left := names()
	if slices.Contains(left, idleName) {
		t.Errorf("the unused image is there still")
	}
	for what, name := range map[string]string{"that a container runs from": runsName, "that is prepared still": heldName, "that was just prepared": nextName, "that is not ours": "somebody.test/else:1"} {
		if !slices.Contains(left, name) {
			t.Errorf("the image %s is gone", what)
		}
	}
	n.session.Stop(sleeping.GetExecution(), "SIGKILL", 0)
	n.session.Wait(sleeping.GetExecution())
	if _, name := prepare(idle); name != idleName {
		t.Errorf("brought again it is called %q, and was %q", name, idleName)
	}
	for _, name := range names() {
		if !slices.Contains(before, name) {
			if err := conn.ImageService().Delete(ctx, name); err != nil {
				t.Error(err)
			}
		}
	}
}
