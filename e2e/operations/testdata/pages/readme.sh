# Photos, and containerd.
mkdir -p /srv/photos
for n in 1 2 3; do echo photo $n > /srv/photos/$n.jpg; done
systemctl start containerd
