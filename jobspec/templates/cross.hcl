# Runs a program for every pair of a file of one input and a file of another.
# Combining inputs is not supported in this version: the file is checked, and
# refused by name.

job "every-pair" {
  input "left" {
    source = "left" # a folder beside this file
    mount  = "/in/left"
  }
  input "right" {
    source = "right"
    mount  = "/in/right"
  }

  # The first over is the outermost: all pairs of the first file on the left
  # come first. union, join and group are written in the same way.
  split {
    cross {
      over "left" {
        glob = "/*"
      }
      over "right" {
        glob = "/*"
      }
    }
    batch_size = 100 # pairs a partition
  }

  task "compare" {
    driver = "exec"
    config {
      command = "/bin/sh"
      # The pairs are the lines of this file.
      args = ["-c", "cat \"$SHEAF_SHARD_FILE\" > \"$SHEAF_OUTPUT_PAIRS/${partition.index}\""]
    }
  }

  output "pairs" {
    path = "/pairs"
  }
}
