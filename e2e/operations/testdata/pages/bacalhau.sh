mkdir -p /srv/photos
for n in 1 2; do echo photo $n > /srv/photos/$n.jpg; done
systemctl start containerd
