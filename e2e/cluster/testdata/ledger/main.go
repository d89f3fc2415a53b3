// Ledger is the task of the ledger job. It reads its record, "index nonce", writes an entry that only the
// nonce's holder can make, and tells a witness outside when it began and when it ended. From partition FREE on it
// does not end before there is the file GATE.
package main

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// pollEvery is how often a task looks at the gate.
const pollEvery = 50 * time.Millisecond

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	hold, err := time.ParseDuration(os.Getenv("HOLD"))
	if err != nil {
		return err
	}
	if err := testify("begun"); err != nil {
		return err
	}
	records, err := filepath.Glob(filepath.Join(os.Getenv("SHEAF_INPUT_RECORDS"), "*"))
	if err != nil || len(records) != 1 {
		return fmt.Errorf("the shard has the records %v, want one (%v)", records, err)
	}
	b, err := os.ReadFile(records[0])
	if err != nil {
		return err
	}
	index, nonce, _ := strings.Cut(strings.TrimSpace(string(b)), " ")
	time.Sleep(hold)
	if err := pass(); err != nil {
		return err
	}
	entry := fmt.Sprintf("%s %x\n", index, sha256.Sum256([]byte(nonce)))
	if err := os.WriteFile(filepath.Join(os.Getenv("SHEAF_OUTPUT_ENTRIES"), index), []byte(entry), 0o644); err != nil {
		return err
	}
	// The book is read in order of partitions, and says which attempt wrote.
	line := fmt.Sprintf("%s %s %s", os.Getenv("SHEAF_PARTITION_INDEX"), os.Getenv("SHEAF_ATTEMPT"), entry)
	if err := os.WriteFile(filepath.Join(os.Getenv("SHEAF_OUTPUT_BOOK"), "book"), []byte(line), 0o644); err != nil {
		return err
	}
	return testify("ended")
}

// pass waits for the gate, where this partition has to.
func pass() error {
	index, err := strconv.Atoi(os.Getenv("SHEAF_PARTITION_INDEX"))
	if err != nil {
		return err
	}
	free, err := strconv.Atoi(os.Getenv("FREE"))
	if err != nil || index < free {
		return err
	}
	for {
		if _, err := os.Stat(os.Getenv("GATE")); !os.IsNotExist(err) {
			return err
		}
		time.Sleep(pollEvery)
	}
}

// testify adds a line to the witness's file. Short appends are not torn.
func testify(what string) error {
	f, err := os.OpenFile(os.Getenv("WITNESS"), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = fmt.Fprintln(f, what, os.Getenv("SHEAF_PARTITION_INDEX"), os.Getenv("SHEAF_ATTEMPT"), os.Getenv("NODE"), time.Now().UnixNano())
	return err
}
