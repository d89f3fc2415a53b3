# Splits the files of a folder into batches and runs a program over each batch.
# See what it would do:  agent job plan FILE
# Run it:                agent job run -o results FILE

job "count-words" {
  # Where the files are, and where the task sees them. A relative path is
  # taken from the folder of this file.
  input "texts" {
    source = "file:///usr/share/common-licenses"
    mount  = "/texts"
  }

  # Which files or directories are kept together, and how many go to one
  # partition. "/*" is every file and directory at the top, "/**/*.txt" every
  # text at any depth, "/" everything as one.
  split {
    glob       = "/*"
    batch_size = 5
  }

  task "count" {
    driver = "exec"
    config {
      command = "/bin/sh"
      # SHEAF_INPUT_TEXTS and SHEAF_OUTPUT_COUNTS say where the folders are. A
      # shell's own $${…} is written with two dollars, so that it is not taken
      # for one of the jobspec.
      args = ["-c", "find -L \"$SHEAF_INPUT_TEXTS\" -type f -exec wc -w {} + > \"$SHEAF_OUTPUT_COUNTS/$${SHEAF_PARTITION_INDEX}.txt\""]
    }
    resources {
      cpu    = 100 # MHz
      memory = 64  # MiB, or "64MiB"
    }
    timeout = "1m"
  }

  # What the task leaves here is kept, and merged over all partitions.
  output "counts" {
    path = "/counts"
  }

  retry {
    attempts = 3
  }

  # One partition in a hundred may fail before the run counts as failed.
  failure {
    tolerate = "1%"
  }
}
