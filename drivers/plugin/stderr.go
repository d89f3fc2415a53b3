package plugin

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
)

// tailLen is how much of a dead process' stderr its error quotes.
const tailLen = 2 << 10

// plain drops go-plugin's advice to authors of plugins, which spans lines.
func plain(err error) error {
	first, _, _ := strings.Cut(err.Error(), "\n")
	return errors.New(strings.ToLower(first[:1]) + first[1:])
}

// tail keeps the end of what is written to it.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, b...)
	if over := len(t.buf) - tailLen; over > 0 {
		t.buf = append(t.buf[:0], t.buf[over:]...)
	}
	return len(b), nil
}

// quoted is the lines that are no log records, as ", stderr: …", or nothing.
func (t *tail) quoted() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var lines []string
	for line := range bytes.Lines(t.buf) {
		if line = bytes.TrimSpace(line); len(line) > 0 && line[0] != '{' {
			lines = append(lines, string(line))
		}
	}
	if len(lines) == 0 {
		return ""
	}
	return fmt.Sprintf(", stderr: %q", strings.Join(lines, "\n"))
}
