// Hostile is a task that does what it should not, as its argument says.
package main

import (
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	out := os.Getenv("SHEAF_OUTPUT_OUT")
	switch os.Args[1] {
	case "loop":
		for {
		}
	case "grow":
		for kept := [][]byte{}; ; {
			b := make([]byte, 1<<20)
			for i := range b {
				b[i] = byte(i)
			}
			kept = append(kept, b)
		}
	case "link":
		if err := os.Symlink("/etc/passwd", filepath.Join(out, "link")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}
