// Gated is a task whose life can be watched and steered from outside. It opens a file of its own,
// which the test sees, and holds it open until it ends; it waits until the test opens a gate.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// pollEvery is how often the task looks at the gate.
const pollEvery = 20 * time.Millisecond

func main() {
	if err := run(os.Getenv("SHEAF_INPUT_IN"), os.Getenv("SHEAF_OUTPUT_OUT")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(in, out string) error {
	index, attempt := os.Getenv("SHEAF_PARTITION_INDEX"), os.Getenv("SHEAF_ATTEMPT")
	held, err := os.Open(filepath.Join(in, index))
	if err != nil {
		return err
	}
	defer held.Close()
	fmt.Printf("begun %s.%s\n", index, attempt)
	n, err := strconv.Atoi(index)
	if err != nil {
		return err
	}
	free, err := strconv.Atoi(os.Getenv("FREE"))
	if err != nil {
		return err
	}
	for n >= free {
		if _, err := os.Stat(filepath.Join(in, "gate")); err == nil {
			break
		}
		time.Sleep(pollEvery)
	}
	if err := os.WriteFile(filepath.Join(out, index), []byte(index+"."+attempt+"\n"), 0o644); err != nil {
		return err
	}
	fmt.Printf("done %s.%s\n", index, attempt)
	return nil
}
