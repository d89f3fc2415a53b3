# Counts the lines and words of every Go file below a folder, in batches, each
# batch in a WebAssembly sandbox of its own.
variable "source" {
  type        = string
  description = "the folder to read"
}

variable "module" {
  type        = string
  description = "the task, built with GOOS=wasip1 GOARCH=wasm"
}

variable "batch_size" {
  type    = number
  default = 200
}

job "linecount" {
  input "source" {
    source = "file://${var.source}"
    mount  = "/src"
  }

  split {
    glob       = "/**/*.go"
    batch_size = var.batch_size
  }

  task "count" {
    driver = "wasm"
    config {
      module = var.module
    }
    timeout = "2m"
  }

  # Every batch writes counts.tsv; joined in the order of the batches they are
  # one table in the order of the files.
  output "counts" {
    path  = "/counts"
    merge = "concat"
  }
}
