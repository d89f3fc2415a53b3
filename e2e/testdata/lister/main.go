// Lister prints the files below /input_images, and tries to write each.
package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

func main() {
	err := filepath.WalkDir("/input_images", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		fmt.Println(path)
		if f, err := os.OpenFile(path, os.O_WRONLY, 0); err == nil {
			if _, err := f.WriteString("changed"); err == nil {
				fmt.Println("WROTE", path)
			}
			f.Close()
		}
		return nil
	})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	if f, err := os.Create("/input_images/volume1/new"); err == nil {
		fmt.Println("MADE")
		f.Close()
	}
}
