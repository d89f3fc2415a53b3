# Reads its input from IPFS, by way of the gateways in the clients'
# configuration; every block is verified.

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
