# line 13, Tasks[0].InputSources[0].Source.Params.Partition.Type: each group is one partition here, however many there are; Count has no meaning then
# line 13, Tasks[0].InputSources[0].Source.Params.Partition.StartIndex: has no twin here and was left out
# line 13, Tasks[0].InputSources[0].Source.Params.Partition.EndIndex: has no twin here and was left out
job "by-date" {
  compat = ["bacalhau"]

  input "input" {
    source = "s3://logs/app/"
    mount  = "/in"
  }

  split {
    glob       = "/**"
    group_by   = "^/([0-9]{4}-[0-9]{2}-[0-9]{2})"
    group_rest = "keep"
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
