// Adder is the task and the reduce of one job: as a task it writes its partition's number, and as the reduce the
// sum of all numbers, of which each must be on a line of its own.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	all := os.Getenv("SHEAF_INPUT_ALL")
	if all == "" {
		return os.WriteFile(filepath.Join(os.Getenv("SHEAF_OUTPUT_ALL"), "numbers"), []byte(os.Getenv("SHEAF_PARTITION_INDEX")+"\n"), 0o644)
	}
	numbers, err := os.ReadFile(filepath.Join(all, "numbers"))
	if err != nil {
		return err
	}
	sum := 0
	for _, line := range strings.Fields(string(numbers)) {
		n, err := strconv.Atoi(line)
		if err != nil {
			return err
		}
		sum += n
	}
	fmt.Println("added up", len(strings.Fields(string(numbers))))
	return os.WriteFile(filepath.Join(os.Getenv("SHEAF_OUTPUT_TOTAL"), "sum"), []byte(strconv.Itoa(sum)), 0o644)
}
