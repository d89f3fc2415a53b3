# Runs a WebAssembly module over batches of files, in a sandbox that sees its
# own files and no others, without network and environment.
# Build one with Go:  GOOS=wasip1 GOARCH=wasm go build -o task.wasm .
# Run it:             agent job run -o results FILE

job "wasm" {
  input "data" {
    source = "data" # a folder beside this file
    mount  = "/data"
  }

  split {
    glob      = "/**"
    max_bytes = "64MiB" # a partition is closed before it would grow past this
  }

  task "process" {
    driver = "wasm"
    config {
      module = "task.wasm" # beside this file
      args   = ["-in", "/data", "-out", "/out"]
    }
    resources {
      memory = "256MiB"
    }
    timeout = "5m"
  }

  output "out" {
    path = "/out"
  }
}
