# line 1, Name: "Thumbnails of 2022" is no name here: it became "Thumbnails-of-2022"
# line 5, Priority: priorities are 1 to 100 here, 50 the usual one: 10 became 60
# line 15, Constraints[2]: "!" with 0 values has no twin here and was left out
# line 30, Tasks[0].Engine.Params.WorkingDirectory: a task begins in the image's own working directory; begin its command with `cd /work`
# line 31, Tasks[0].Env: TOKEN was to come from the node's variable REGISTRY_TOKEN: write a `secret` block instead, and store it with `agent secret put`
# line 41, Tasks[0].InputSources[0].Source.Params.Key: the wildcard became the glob "/day-*": a folder that it matches goes to one partition as a whole
# line 42, Tasks[0].InputSources[0].Source.Params.Region: how a bucket is reached is the clients' configuration: `client { s3 "photos" { region = "eu-central-1" } }`
# line 43, Tasks[0].InputSources[0].Source.Params.Endpoint: how a bucket is reached is the clients' configuration: `client { s3 "photos" { endpoint = "https://s3.example.org" } }`
# line 45, Tasks[0].InputSources[0].Source.Params.Partition.Type: each group is one partition here, however many there are; Count has no meaning then
# line 54, Tasks[0].Publisher.Params.Key: "thumbs/{jobID}/{executionID}" is filled in nowhere: the merged result is published to "thumbs/", with a manifest that names its run
# line 55, Tasks[0].Publisher.Params.Encoding: results are published as files, not as one archive
# line 57, Tasks[0].Resources.CPU: cpu is in MHz here: a core was taken for 1000
# line 62, Tasks[0].Network.Type: traffic cannot be limited to domains: it became the host's network, without limits
# line 67, Tasks[0].Timeouts.QueueTimeout: a run waits in the queue until its own timeout: left out
# line 68, Tasks[0].RestartPolicy: has no twin here and was left out
job "Thumbnails-of-2022" {
  namespace = "photos"
  priority  = 60
  timeout   = "1h0m0s"
  meta = {
    team = "media"
  }
  compat = ["bacalhau"]

  input "photos" {
    source = "s3://photos/2022/"
    mount  = "/inputs"
  }

  split {
    glob       = "/day-*"
    group_by   = "^/day-(\\d{2})"
    group_rest = "keep"
  }

  task "resize" {
    driver = "containerd"

    config {
      args       = ["mogrify", "-path", "/outputs/$${BACALHAU_PARTITION_INDEX}"]
      entrypoint = ["magick"]
      image      = "docker.io/dpokidov/imagemagick:7"
    }
    env = {
      MODE    = "fast"
      QUALITY = "90"
    }
    timeout = "10m0s"
    network = "host"

    resources {
      cpu    = 500
      memory = "500000KiB"
      disk   = "1GiB"

      device "nvidia/gpu" {
      }
    }
  }

  output "outputs" {
    path  = "/outputs"
    merge = "none"
  }

  constraint {
    attribute = "${node.attr.cpu.arch}"
    value     = "amd64"
  }

  constraint {
    attribute = "${node.attr.zone}"
    operator  = "regexp"
    value     = "^(eu-1|eu\\.2)$"
  }

  publish {
    to = "s3://results/thumbs/"
  }
}
