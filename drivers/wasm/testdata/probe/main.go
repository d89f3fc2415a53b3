// Command probe tries, inside a WASI guest, what a hostile or careless task does with
// its file tree, and prints one line for each try that worked.
package main

import (
	"fmt"
	"os"
	"path"
	"strings"
)

func main() {
	switch os.Args[1] {
	case "escape":
		escape(os.Args[2], os.Args[3], os.Args[4:])
	case "links":
		links(os.Args[2])
	case "names":
		names(os.Args[2])
	case "files":
		files(os.Args[2])
	}
}

// escape looks for a way from the writable directory out to targets of the host.
func escape(out, in string, targets []string) {
	for i, target := range targets {
		up := strings.Repeat("../", 20) + strings.TrimPrefix(target, "/")
		for j, to := range []string{target, up} {
			link := fmt.Sprintf("%s/link-%d-%d", out, i, j)
			if os.Symlink(to, link) == nil {
				fmt.Println("made a link to", to)
			}
			read("by a link", link)
		}
		// A link that points inside until its directory moves up.
		os.MkdirAll(out+"/a/b/c/d/e/f/g/h/i/j", 0o755)
		deep := out + "/a/b/c/d/e/f/g/h/i/j/link"
		os.Symlink(strings.Repeat("../", 10)+strings.TrimPrefix(target, "/"), deep)
		os.Rename(out+"/a/b/c/d/e/f/g/h/i/j", out+"/up")
		read("by a moved link", out+"/up/link")
		read("by a path", target)
		read("by dots", out+"/"+up)
		if os.WriteFile(path.Join(out, up), []byte("owned"), 0o644) == nil {
			fmt.Println("wrote by dots to", target)
		}
	}
	// The input's own bytes must not be had by another name.
	if os.Link(in, out+"/hard") == nil {
		fmt.Println("linked an input")
	}
	if os.Rename(in, out+"/moved") == nil {
		fmt.Println("moved an input")
	}
}

func read(how, name string) {
	if b, err := os.ReadFile(name); err == nil {
		fmt.Printf("read %s %s: %d bytes\n", how, name, len(b))
	}
}

// links reads what lies in a directory.
func links(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		fmt.Println(err)
	}
	for _, e := range entries {
		b, err := os.ReadFile(dir + "/" + e.Name())
		fmt.Printf("%s %q %v\n", e.Name(), b, err != nil)
	}
}

// names lists a directory and each below it.
func names(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		fmt.Println(dir, err)
	}
	for _, e := range entries {
		name := path.Join(dir, e.Name())
		fmt.Println(name, e.IsDir())
		if e.IsDir() {
			names(name)
		}
	}
}

// files uses the calls that tasks use, and prints what does not hold.
func files(dir string) {
	name := dir + "/sub/file"
	want := func(what string, ok bool) {
		if !ok {
			fmt.Println("wrong:", what)
		}
	}
	want("mkdir", os.Mkdir(dir+"/sub", 0o755) == nil && os.Mkdir(dir+"/sub", 0o755) != nil)
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o644)
	want("create", err == nil)
	_, err = f.WriteAt([]byte("world"), 6)
	want("write at", err == nil)
	_, err = f.Write([]byte("hello "))
	want("write", err == nil && f.Sync() == nil)
	want("truncate", f.Truncate(9) == nil)
	buf := make([]byte, 20)
	n, _ := f.ReadAt(buf, 2)
	want("read at", string(buf[:n]) == "llo wor")
	info, err := f.Stat()
	want("stat", err == nil && info.Size() == 9)
	want("close", f.Close() == nil)
	f, err = os.OpenFile(name, os.O_APPEND|os.O_WRONLY, 0)
	want("open to append", err == nil)
	_, err = f.Write([]byte("!"))
	want("append", err == nil && f.Close() == nil)
	b, err := os.ReadFile(name)
	want("read", err == nil && string(b) == "hello wor!")
	want("rename", os.Rename(name, dir+"/sub/other") == nil)
	want("link", os.Link(dir+"/sub/other", dir+"/hard") == nil)
	want("symlink", os.Symlink("sub/other", dir+"/soft") == nil)
	to, err := os.Readlink(dir + "/soft")
	want("readlink", err == nil && to == "sub/other")
	b, err = os.ReadFile(dir + "/soft")
	want("read by a link", err == nil && string(b) == "hello wor!")
	info, err = os.Lstat(dir + "/soft")
	want("lstat", err == nil && info.Mode()&os.ModeSymlink != 0)
	want("remove of a full directory", os.Remove(dir+"/sub") != nil)
	want("remove", os.Remove(dir+"/sub/other") == nil && os.Remove(dir+"/sub") == nil && os.Remove(dir+"/soft") == nil)
	_, err = os.Stat(dir + "/sub")
	want("not exist", os.IsNotExist(err))
	for i := range 1000 {
		want("many", os.WriteFile(fmt.Sprintf("%s/many-%d", dir, i), nil, 0o644) == nil)
	}
	entries, err := os.ReadDir(dir)
	want("read a large directory", err == nil && len(entries) == 1001)
	want("exclusive", !can(os.OpenFile(dir+"/hard", os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)))
	want("no mkdir at the top", os.Mkdir("/new", 0o755) != nil)
	want("no file at the top", os.WriteFile("/new", nil, 0o644) != nil)
	want("mounts stay", os.Remove(dir) != nil && os.Rename(dir, dir+"2") != nil)
}

func can(f *os.File, err error) bool {
	if err == nil {
		f.Close()
	}
	return err == nil
}
