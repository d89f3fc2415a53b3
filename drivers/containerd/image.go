package containerd

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	client "github.com/containerd/containerd"
	"github.com/containerd/containerd/content"
	"github.com/containerd/containerd/errdefs"
	"github.com/containerd/containerd/images"
	"github.com/containerd/containerd/leases"
	"github.com/containerd/containerd/platforms"
	"github.com/containerd/containerd/reference/docker"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sheaf-run/agent/drivers"
	"github.com/sheaf-run/agent/drivers/driverpb"
	"github.com/sheaf-run/agent/sheaf"
)

// Prepare gets the image, unpacks it, and gives its digest.
func (d *Driver) Prepare(ctx context.Context, req *driverpb.PrepareRequest) (*driverpb.PrepareResponse, error) {
	var conf config
	if err := drivers.DecodeConfig(Name, req.GetConfigJson(), &conf); err != nil {
		return nil, err
	}
	if conf.Image == "" {
		return nil, invalid("the config names no image", `give image = "…"`)
	}
	conn, ctx, err := d.daemon.connect(ctx)
	if err != nil {
		return nil, err
	}
	if err := d.sweepOnce(ctx, conn); err != nil {
		return nil, err
	}
	resp, err := d.prepare(ctx, conn, conf, req)
	if err != nil {
		return nil, err
	}
	if err := d.removeUnused(ctx, conn); err != nil { // the next Prepare tries again
		slog.Warn("unused images not removed", "error", err)
	}
	return resp, nil
}

func (d *Driver) prepare(ctx context.Context, conn *client.Client, conf config, req *driverpb.PrepareRequest) (*driverpb.PrepareResponse, error) {
	d.preparing.RLock()
	defer d.preparing.RUnlock()
	// Without a lease, what is pulled could be collected before it is unpacked.
	ctx, done, err := conn.WithLease(ctx, leases.WithRandomID())
	if err != nil {
		return nil, fmt.Errorf("hold a lease of containerd: %w", err)
	}
	defer func() { _ = done(context.WithoutCancel(ctx)) }()
	img, err := d.image(ctx, conn, conf.Image, req.GetPinnedDigest(), req.GetRegistryCredentials())
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", conf.Image, err)
	}
	if err := used(ctx, conn, img.Name()); err != nil {
		return nil, err
	}
	if want := req.GetPinnedDigest(); want != "" && img.Target().Digest.String() != want {
		return nil, invalid(fmt.Sprintf("image %s is %s now, and the run began with %s", conf.Image, img.Target().Digest, want), "submit the job again")
	}
	if err := usable(ctx, img); err != nil {
		return nil, fmt.Errorf("image %s: %w", conf.Image, err)
	}
	if unpacked, err := img.IsUnpacked(ctx, snapshotter); err != nil {
		return nil, fmt.Errorf("image %s: %w", conf.Image, err)
	} else if !unpacked {
		if err := img.Unpack(ctx, snapshotter); err != nil {
			return nil, fmt.Errorf("unpack image %s: %w", conf.Image, err)
		}
	}
	t, err := describe(ctx, conn, img)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", conf.Image, err)
	}
	if err := t.runnable(conf); err != nil {
		return nil, err
	}
	handle := img.Target().Digest.String()
	d.keepPrepared(handle, t)
	return &driverpb.PrepareResponse{Handle: handle, Digest: handle}, nil
}

func invalid(msg, hint string) error {
	return &sheaf.Error{Class: sheaf.Invalid, Field: "config.image", Msg: msg, Hint: hint}
}

// image finds the image here, imports it from an archive, or pulls it.
func (d *Driver) image(ctx context.Context, conn *client.Client, ref, pinned string, secret []byte) (client.Image, error) {
	for _, kind := range []string{"oci-archive:", "docker-archive:"} {
		if path, ok := strings.CutPrefix(ref, kind); ok {
			return fromArchive(ctx, conn, path)
		}
	}
	named, err := docker.ParseDockerRef(ref)
	if err != nil {
		return nil, invalid("this is no reference of an image: "+err.Error(), `write it as in "docker.io/library/alpine:3", or oci-archive:PATH`)
	}
	as, err := parseCredentials(secret, docker.Domain(named))
	if err != nil {
		return nil, err
	}
	name := named.String()
	if pinned != "" {
		name = docker.TrimNamed(named).String() + "@" + pinned
		if img, err := conn.GetImage(ctx, name); err == nil {
			return img, nil
		}
	}
	img, err := conn.Pull(ctx, name, client.WithPullUnpack, client.WithPullSnapshotter(snapshotter), client.WithResolver(resolver(docker.Domain(named), as)))
	var ours *sheaf.Error
	switch {
	case errors.As(err, &ours):
		return nil, ours
	case errdefs.IsNotFound(err), err != nil && strings.Contains(err.Error(), "pull access denied"):
		return nil, invalid("the registry has no such image, or does not show it to us", "check the name and the tag; for an image that is not public give config { "+sheaf.RegistrySecret+" = … }")
	case err != nil && (strings.Contains(err.Error(), "401 Unauthorized") || strings.Contains(err.Error(), "403 Forbidden")):
		return nil, invalid("the registry does not take our credentials for it", "give config { "+sheaf.RegistrySecret+" = … } a secret that may read it")
	case err != nil && strings.Contains(err.Error(), "no match for platform"):
		return nil, wrongPlatform()
	case err != nil:
		return nil, &sheaf.Error{Class: sheaf.Unavailable, Msg: "pull it", Err: err}
	}
	return img, nil
}

// fromArchive imports an OCI or docker archive. The image is named after the archive's file as it
// stands, so that the same archive is imported once.
func fromArchive(ctx context.Context, conn *client.Client, path string) (client.Image, error) {
	path = strings.TrimPrefix(path, "file://")
	if !filepath.IsAbs(path) {
		return nil, invalid("the archive's path is not absolute", "write the whole path, from /")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, invalid("open the archive: "+err.Error(), "it must be on every node that runs the job")
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return nil, invalid("the archive is not a file", "give the path of a tar file")
	}
	sum := sha256.Sum256([]byte(fmt.Sprintf("%s\x00%d\x00%d", path, info.Size(), info.ModTime().UnixNano())))
	name := "sheaf.local/archive:" + hex.EncodeToString(sum[:16])
	if img, err := conn.GetImage(ctx, name); err == nil {
		return img, nil
	}
	made, err := conn.Import(ctx, f, client.WithIndexName(name), client.WithImageRefTranslator(func(string) string { return "" }), client.WithAllPlatforms(true))
	if errdefs.IsAlreadyExists(err) { // another agent of this machine imported it meanwhile
		return conn.GetImage(ctx, name)
	}
	if err != nil {
		return nil, invalid("it cannot be read as an archive of images: "+err.Error(), "make it with `docker save` or `skopeo copy … oci-archive:`")
	}
	if len(made) == 0 {
		return nil, invalid("the archive holds no image", "make it with `docker save` or `skopeo copy … oci-archive:`")
	}
	img, err := conn.GetImage(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("find what was imported: %w", err)
	}
	return img, nil
}

func wrongPlatform() error {
	return invalid("the image has nothing for this machine, "+platforms.DefaultString(), "build it for this platform, or run the job where its platform is")
}

// usable refuses what could never be started here, so that nothing is tried for it.
func usable(ctx context.Context, img client.Image) error {
	desc, err := img.Config(ctx)
	if errdefs.IsNotFound(err) {
		return wrongPlatform()
	}
	if err != nil {
		return invalid("its config cannot be read: "+err.Error(), "build the image again")
	}
	blob, err := images.Platforms(ctx, img.ContentStore(), desc)
	if err == nil && len(blob) > 0 && !platforms.Default().Match(blob[0]) {
		return wrongPlatform()
	}
	image, err := imageConfig(ctx, img)
	if err != nil {
		return err
	}
	for _, id := range strings.SplitN(image.Config.User, ":", 2) {
		if n, err := strconv.ParseUint(id, 10, 64); err == nil && n > math.MaxInt32 || errors.Is(err, strconv.ErrRange) {
			return invalid(fmt.Sprintf("its user %q is out of range", image.Config.User), "use an ID up to 2147483647")
		}
	}
	return nil
}

// maxConfigBlob bounds an image's config, in bytes; real ones are a few KiB.
const maxConfigBlob = 4 << 20

// imageConfig reads what the image says of how to start it.
func imageConfig(ctx context.Context, img client.Image) (v1.Image, error) {
	desc, err := img.Config(ctx)
	if err != nil {
		return v1.Image{}, err
	}
	if desc.Size > maxConfigBlob {
		return v1.Image{}, invalid(fmt.Sprintf("its config is %d bytes long, more than %d", desc.Size, maxConfigBlob), "build the image again")
	}
	var spec v1.Image
	b, err := content.ReadBlob(ctx, img.ContentStore(), desc)
	if err == nil {
		err = json.Unmarshal(b, &spec)
	}
	if err != nil {
		return v1.Image{}, invalid("its config cannot be read: "+err.Error(), "build the image again")
	}
	return spec, nil
}
