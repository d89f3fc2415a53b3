# line 13, Tasks[0].InputSources[0].Source.Params.ChecksumSHA256: an object is read as it was listed when the run began, known by its ETag and size: left out
# line 20, Tasks[0].InputSources[1].Source.Params.VersionID: a version is one object's, and the Key is a prefix of some: left out
job "version" {
  compat = ["bacalhau"]

  input "input" {
    source = "s3://logs/app/config.json?versionId=3sL4kqtJlcpXroDTDmJ"
    mount  = "/one"
  }

  input "input2" {
    source = "s3://logs/app/"
    mount  = "/many"
  }

  task "main" {
    driver = "containerd"

    config {
      image = "ghcr.io/acme/tool:1"
    }
  }

  output "out" {
    path = "/out"
  }
}
