# line 9, Tasks[0].Publisher: the merged result becomes a CAR file and has a CID, which `agent job status` shows; `ipfs dag import FILE` takes it to a node. "car:///srv/results" is a directory of your choice, which a client's configuration allows: `client { file_root "/srv/results" { writable = true } }`
job "by-cid" {
  count  = 3
  compat = ["bacalhau"]

  input "input" {
    source = "ipfs://bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi"
    mount  = "/in"
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

  publish {
    to = "car:///srv/results"
  }
}
