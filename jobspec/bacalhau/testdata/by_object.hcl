# line 13, Tasks[0].InputSources[0].Source.Params.Partition.Type: objects are spread in the order of their names, in parts of nearly equal bytes, instead of by a hash
# line 13, Tasks[0].InputSources[0].Source.Params.Partition.StartIndex: has no twin here and was left out
# line 13, Tasks[0].InputSources[0].Source.Params.Partition.EndIndex: has no twin here and was left out
# line 13, Tasks[0].InputSources[0].Source.Params.Partition.DateFormat: has no twin here and was left out
job "by-object" {
  compat = ["bacalhau"]

  input "input" {
    source = "s3://logs/app/"
    mount  = "/in"
  }

  split {
    glob       = "/**"
    partitions = 4
  }

  task "main" {
    driver = "containerd"

    config {
      image = "ghcr.io/acme/tool:1"
    }
  }

  output "out" {
    path  = "/out"
    merge = "none"
  }
}
