package port_test

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/sheaf-run/agent/e2e/port"
)

// asked in a process's environment makes it print ports and hold their claim until its input ends.
const asked = "SHEAF_TEST_PORTS"

func TestMain(m *testing.M) {
	if os.Getenv(asked) == "" {
		os.Exit(m.Run())
	}
	for range perProcess {
		at, err := port.Free()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(at)
	}
	os.Stdout.Close()
	_, _ = os.Stdin.Read(make([]byte, 1))
}

const perProcess = 150 // more than a block

func TestNoTwoAreGivenOne(t *testing.T) {
	seen := map[string]bool{}
	for range 4 {
		c := exec.Command(os.Args[0])
		c.Env = append(os.Environ(), asked+"=1")
		hold, err := c.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := c.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			hold.Close()
			if err := c.Wait(); err != nil {
				t.Error(err)
			}
		})
		printed, err := io.ReadAll(out)
		if err != nil {
			t.Fatal(err)
		}
		ports := strings.Fields(string(printed))
		if len(ports) != perProcess {
			t.Fatalf("%d ports, not %d", len(ports), perProcess)
		}
		for _, p := range ports {
			if seen[p] {
				t.Errorf("port %s was given twice", p)
			}
			seen[p] = true
		}
	}
}

func TestTakenIsLeftOut(t *testing.T) {
	at, err := port.Free()
	if err != nil {
		t.Fatal(err)
	}
	u, err := net.ListenPacket("udp", fmt.Sprintf("127.0.0.1:%d", at+1))
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	next, err := port.Free()
	if err != nil {
		t.Fatal(err)
	}
	if next <= at+1 {
		t.Errorf("port %d, which gossip of another has, was given", next)
	}
}
