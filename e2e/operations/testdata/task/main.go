// Task is what the examples run as WebAssembly: with a number it prints its square, without one what its shard is.
package main

import (
	"io"
	"os"
	"strconv"
)

func main() {
	if len(os.Args) > 1 {
		n, err := strconv.Atoi(os.Args[1])
		if err != nil {
			os.Exit(1)
		}
		os.Stdout.WriteString(strconv.Itoa(n*n) + "\n")
		return
	}
	shard, err := os.Open(os.Getenv("SHEAF_SHARD_FILE"))
	if err != nil {
		os.Exit(1)
	}
	if _, err := io.Copy(os.Stdout, shard); err != nil {
		os.Exit(1)
	}
}
