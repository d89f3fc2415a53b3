# Reads its input from IPFS; every block is verified. Remote sources are not
# supported in this version: the file is checked, and refused by name.

job "from-ipfs" {
  input "data" {
    source = "ipfs://bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi"
    mount  = "/data"
  }

  split {
    glob       = "/*"
    batch_size = 10
  }

  task "process" {
    driver = "wasm"
    config {
      module = "task.wasm" # beside this file
    }
  }

  output "out" {
    path = "/out"
  }
}
