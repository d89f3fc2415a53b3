echo key > key.pem
mkdir -p /etc/sheaf.d
