// Secrets prints the secrets that it was given, a byte at a time and whole, and fails
// with them on its lips when it is told to.
package main

import (
	"crypto/sha256"
	"fmt"
	"os"
)

func main() {
	file := os.Getenv("SHEAF_SECRET_KEY")
	key, err := os.ReadFile(file)
	if err != nil {
		fmt.Println("no file:", err)
		os.Exit(1)
	}
	token := os.Getenv("TOKEN")
	fmt.Printf("sums %x %x\n", sha256.Sum256([]byte(token)), sha256.Sum256(key))
	for _, b := range []byte("the token is " + token + ".\n") {
		os.Stdout.Write([]byte{b})
	}
	os.Stdout.Write(key)
	if os.WriteFile(file+".more", key, 0o600) == nil {
		fmt.Println("the directory can be written")
	}
	fmt.Fprintln(os.Stderr, "it failed with "+token)
	if os.Getenv("FAIL") != "" {
		os.Exit(3)
	}
}
