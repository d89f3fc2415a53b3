# Runs a program a number of times, without any input files.
# Run it:  agent job run -o results FILE

job "hello" {
  # How many partitions there are, numbered from 0.
  count = 3

  task "say" {
    driver = "exec"
    config {
      command = "/bin/echo"
      # ${partition.index} is filled in when the task runs.
      args = ["partition ${partition.index} of ${partition.count}, try ${attempt}"]
    }
    timeout = "10s"
  }
}
