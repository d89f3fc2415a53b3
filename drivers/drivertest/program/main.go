// Command program is what the conformance suite runs through a driver: its
// first argument is a verb.
package main

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sort"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// verbs are what the program does, by name; each gets the arguments after its verb. Those that need
// processes or signals are in a file that wasip1 does not have.
var verbs = map[string]func(args []string){
	// env prints its environment, sorted.
	"env": func([]string) {
		list := os.Environ()
		sort.Strings(list)
		fmt.Println(strings.Join(list, "\n"))
	},
	// args prints each argument quoted.
	"args": func(args []string) {
		for _, a := range args {
			fmt.Printf("%q\n", a)
		}
	},
	// print OUT ERR writes to both outputs.
	"print": func(args []string) {
		fmt.Print(args[0])
		fmt.Fprint(os.Stderr, args[1])
	},
	// lines N writes N numbered lines to stdout and to stderr, in turns.
	"lines": func(args []string) {
		for i := range number(args[0]) {
			fmt.Fprintf(os.Stdout, "out %d\n", i)
			fmt.Fprintf(os.Stderr, "err %d\n", i)
		}
	},
	// bytes N writes N bytes on one line.
	"bytes": func(args []string) {
		chunk := bytes.Repeat([]byte("x"), 64<<10)
		for n := number(args[0]); n > 0; n -= len(chunk) {
			_, err := os.Stdout.Write(chunk[:min(n, len(chunk))])
			check(err)
		}
	},
	// endless writes for ever.
	"endless": func([]string) {
		chunk := bytes.Repeat([]byte("endless\n"), 512)
		for {
			if _, err := os.Stdout.Write(chunk); err != nil {
				os.Exit(9)
			}
		}
	},
	// exit N ends with a code.
	"exit": func(args []string) { os.Exit(number(args[0])) },
	// sleep SECONDS says "ready", then sleeps.
	"sleep": func(args []string) {
		fmt.Println("ready")
		time.Sleep(time.Duration(number(args[0])) * time.Second)
	},
	// beat FILE appends to a file for ever.
	"beat": func(args []string) {
		f, err := os.Create(args[0])
		check(err)
		for i := 0; ; i++ {
			_, err := f.WriteString(".")
			check(err)
			if i == 0 {
				fmt.Println("ready")
			}
			time.Sleep(time.Millisecond)
		}
	},
	// spin says "ready" and keeps a core busy for ever.
	"spin": func([]string) {
		fmt.Println("ready")
		for i := 0; ; i++ {
			spun.Store(int64(i))
		}
	},
	// stdin prints how much stdin holds.
	"stdin": func([]string) {
		n, err := io.Copy(io.Discard, os.Stdin)
		fmt.Printf("%d bytes, %v\n", n, err)
	},
	// list DIR prints every file and directory below, directories with a slash.
	"list": func(args []string) {
		root := args[0]
		check(filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			rel, err := filepath.Rel(root, path)
			if err == nil && rel != "." {
				if d.IsDir() {
					rel += "/"
				}
				fmt.Printf("%q\n", rel)
			}
			return err
		}))
	},
	// cat FILE prints a file.
	"cat": func(args []string) {
		data, err := os.ReadFile(args[0])
		check(err)
		_, err = os.Stdout.Write(data)
		check(err)
	},
	// write FILE TEXT makes a file and its directories.
	"write": func(args []string) {
		check(os.MkdirAll(filepath.Dir(args[0]), 0o755))
		check(os.WriteFile(args[0], []byte(args[1]), 0o644))
	},
	// tamper DIR FILE tries every way to change an input and says which worked.
	"tamper": func(args []string) {
		dir, file := args[0], args[0]+"/"+args[1]
		tries := []struct {
			what string
			do   func() error
		}{
			{"create", func() error { return os.WriteFile(dir+"/new", []byte("x"), 0o644) }},
			{"overwrite", func() error { return os.WriteFile(file, []byte("x"), 0o644) }},
			{"append", func() error { f, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0); closeOf(f); return err }},
			{"truncate", func() error { return os.Truncate(file, 0) }},
			{"chmod", func() error { return os.Chmod(file, 0o777) }},
			{"utimes", func() error { return os.Chtimes(file, time.Unix(1, 0), time.Unix(1, 0)) }},
			{"mkdir", func() error { return os.Mkdir(dir+"/d", 0o755) }},
			{"symlink", func() error { return os.Symlink("/etc", dir+"/l") }},
			{"link", func() error { return os.Link(file, dir+"/h") }},
			{"rename", func() error { return os.Rename(file, dir+"/r") }},
			{"remove", func() error { return os.Remove(file) }},
		}
		for _, try := range tries {
			if try.what == "chmod" && runtime.GOOS == "wasip1" {
				continue // WASI has no modes, and Go's Chmod there says that it worked
			}
			if try.do() == nil {
				fmt.Println("done:", try.what)
			}
		}
	},
	// grow takes ever more memory, touching all of it; MIB at most.
	"grow": func(args []string) {
		for range number(args[0]) {
			b := make([]byte, 1<<20)
			for i := 0; i < len(b); i += 4096 {
				b[i] = 1
			}
			kept = append(kept, b)
		}
		fmt.Println("grown")
	},
}

var (
	spun atomic.Int64
	kept [][]byte
)

func main() {
	if len(os.Args) < 2 || verbs[os.Args[1]] == nil {
		fmt.Fprintf(os.Stderr, "program: unknown verb in %q\n", os.Args)
		os.Exit(64)
	}
	verbs[os.Args[1]](os.Args[2:])
}

func number(s string) int {
	n, err := strconv.Atoi(s)
	check(err)
	return n
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "program:", err)
		os.Exit(65)
	}
}

func closeOf(f *os.File) {
	if f != nil {
		_ = f.Close()
	}
}
