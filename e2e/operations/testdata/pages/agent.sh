# The configuration that `agent start` finds, before there is an example of one; and what the examples name.
mkdir -p /etc/sheaf.d
printf 'data_dir = "/var/lib/agent"\nserver {\n  enabled = true\n}\n' > /etc/sheaf.d/agent.hcl
(umask 077; echo drowssap > /etc/sheaf.d/s3.key)
systemctl start containerd
