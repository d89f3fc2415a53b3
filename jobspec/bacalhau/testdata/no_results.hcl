# line 5, Tasks[0].Publisher: there are no ResultPaths to publish: `agent job logs` has what the task printed
job "no-results" {
  compat = ["bacalhau"]

  task "main" {
    driver = "containerd"

    config {
      image = "ghcr.io/acme/tool:1"
    }
  }
}
