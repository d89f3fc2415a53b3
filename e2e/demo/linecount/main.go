// Linecount is the demo's task. For each file of its shard it appends a line to
// counts.tsv in the output: path, lines, words and bytes, by tabs. It is built
// for WebAssembly, as a plain program and into a container image alike.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"unicode"
	"unicode/utf8"
)

type datum struct {
	Atoms []struct {
		Path string `json:"path"`
	} `json:"atoms"`
}

func main() {
	if err := run(os.Getenv("SHEAF_SHARD_FILE"), os.Getenv("SHEAF_OUTPUT_COUNTS")); err != nil {
		fmt.Fprintln(os.Stderr, "linecount:", err)
		os.Exit(1)
	}
}

func run(shardFile, output string) error {
	shard, err := os.Open(shardFile)
	if err != nil {
		return err
	}
	defer shard.Close()
	out, err := os.Create(filepath.Join(output, "counts.tsv"))
	if err != nil {
		return err
	}
	w := bufio.NewWriter(out)
	files := 0
	for dec := json.NewDecoder(bufio.NewReader(shard)); dec.More(); {
		var d datum
		if err := dec.Decode(&d); err != nil {
			return err
		}
		for _, a := range d.Atoms {
			b, err := os.ReadFile(a.Path)
			if err != nil {
				return err
			}
			lines, words := count(b)
			fmt.Fprintf(w, "%s\t%d\t%d\t%d\n", a.Path, lines, words, len(b))
			files++
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Printf("%s: %d files\n", os.Getenv("SHEAF_PARTITION_INDEX"), files)
	return out.Close()
}

// count counts line feeds, and runs of anything but white space.
func count(b []byte) (lines, words int) {
	inWord := false
	for len(b) > 0 {
		r, size := utf8.DecodeRune(b)
		b = b[size:]
		if r == '\n' {
			lines++
		}
		if space := unicode.IsSpace(r); space {
			inWord = false
		} else if !inWord {
			inWord = true
			words++
		}
	}
	return lines, words
}
