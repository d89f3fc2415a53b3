package containerd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	client "github.com/containerd/containerd"
	"github.com/containerd/containerd/errdefs"
	"github.com/containerd/containerd/images"

	"github.com/sheaf-run/agent/sheaf"
)

const (
	// ImagesVariable names the environment variable that says how long images are kept that no
	// run uses, as in "72h".
	ImagesVariable = "SHEAF_CONTAINERD_IMAGES"
	// DefaultImages keeps what a nightly run uses from one night to the next.
	DefaultImages = 36 * time.Hour
	// looks is how often in that time unused images are looked for.
	looks = 24

	// labelUsed says when an image was last used by us, in Unix seconds. Images
	// without it are somebody else's.
	labelUsed = "run.sheaf/used"
)

// kept is how long unused images are kept.
func kept() time.Duration {
	if d, err := time.ParseDuration(os.Getenv(ImagesVariable)); err == nil && d > 0 {
		return d
	}
	return DefaultImages
}

// used notes on an image that it is used now.
func used(ctx context.Context, conn *client.Client, name string) error {
	_, err := conn.ImageService().Update(ctx, images.Image{Name: name, Labels: map[string]string{labelUsed: strconv.FormatInt(time.Now().Unix(), 10)}}, "labels."+labelUsed)
	if err != nil {
		return fmt.Errorf("note that image %s is used: %w", name, err)
	}
	return nil
}

// removeUnused removes the images that nobody has used for long. Only Prepare calls it, when
// it holds nothing: no image may be removed between its being found and its being prepared.
func (d *Driver) removeUnused(ctx context.Context, conn *client.Client) error {
	d.mu.Lock()
	due := time.Since(d.looked) >= d.keep/looks
	d.mu.Unlock()
	if !due || !d.preparing.TryLock() {
		return nil
	}
	defer d.preparing.Unlock()
	d.mu.Lock()
	d.looked = time.Now()
	inUse := map[string]bool{} // digests, and names
	for digest := range d.prepared {
		inUse[digest] = true
	}
	d.mu.Unlock()
	all, err := conn.ImageService().List(ctx, fmt.Sprintf("labels.%q", labelUsed))
	if err != nil {
		return fmt.Errorf("list images: %w", err)
	}
	containers, err := conn.ContainerService().List(ctx)
	if err != nil {
		return fmt.Errorf("list containers: %w", err)
	}
	for _, c := range containers {
		inUse[c.Image] = true
	}
	var errs []error
	for _, img := range all {
		at, err := strconv.ParseInt(img.Labels[labelUsed], 10, 64)
		switch {
		case err != nil || time.Since(time.Unix(at, 0)) < d.keep:
		case inUse[img.Target.Digest.String()] || inUse[img.Name]:
			errs = append(errs, used(ctx, conn, img.Name))
		default:
			if err := conn.ImageService().Delete(ctx, img.Name); err != nil && !errdefs.IsNotFound(err) {
				errs = append(errs, fmt.Errorf("remove image %s: %w", img.Name, err))
			}
		}
	}
	return errors.Join(errs...)
}

// prepared is an image that is ready to run, for as many runs as have prepared it.
type prepared struct {
	*template
	refs int
}

// keepPrepared notes one more run that has prepared an image. The newest reading of it counts.
func (d *Driver) keepPrepared(handle string, t *template) {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.prepared[handle]
	if p == nil {
		p = &prepared{}
		d.prepared[handle] = p
	}
	p.template = t
	p.refs++
}

// Release gives up one Prepare's handle; the image stays as a cache.
func (d *Driver) Release(_ context.Context, handle string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if p := d.prepared[handle]; p != nil {
		if p.refs--; p.refs == 0 {
			delete(d.prepared, handle)
		}
	}
	return nil
}

// ready is what a handle names.
func (d *Driver) ready(handle string) (*template, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if p := d.prepared[handle]; p != nil {
		return p.template, nil
	}
	return nil, &sheaf.Error{Class: sheaf.Internal, Msg: fmt.Sprintf("image %s is not prepared", handle)}
}
