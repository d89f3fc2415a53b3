job "hello" {
  count  = 2
  compat = ["bacalhau"]

  task "main" {
    driver = "containerd"

    config {
      args  = ["echo", "hello"]
      image = "docker.io/library/busybox"
    }
  }
}
