# line 3, count: an ops job runs once on every node that matches: left out
# line 12, tasks[0].engine.params.entryModule.source.params.sourcePath: the clients' configuration lists the directories that jobs may read: `client { file_root "/modules/count.wasm" { } }`
# line 18, tasks[0].inputSources[0].source.params.readWrite: inputs are read-only here: write into an output
# line 18, tasks[0].inputSources[0].source.params.sourcePath: the clients' configuration lists the directories that jobs may read: `client { file_root "/srv/data" { } }`
# line 20, tasks[0].inputSources[1].source.params.url: read over https here: the page's certificate vouches for it
job "count" {
  type   = "ops"
  compat = ["bacalhau"]

  input "input" {
    source = "file:///srv/data"
    mount  = "/data"
  }

  input "input2" {
    source = "https://example.org/list.txt"
    mount  = "/list"
  }

  input "input3" {
    source = "ipfs://bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi"
    mount  = "/cid"
  }

  task "main" {
    driver = "wasm"

    config {
      args   = ["--deep", "/data"]
      module = "file:///modules/count.wasm"
    }
    env = {
      MODE = "x$${y}"
    }
    network = "host"
  }
}
