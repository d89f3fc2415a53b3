package e2e

import (
	"fmt"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/sheaf-run/agent/sheaf"
)

// TestBackup: a partition that hangs on one node is done by another, and is committed once.
func TestBackup(t *testing.T) {
	f := startFleet(t, 2)
	const n, slow = 12, 5
	f.server.ok("job", "run", "-q", "-id", "r", jobspec(t, shell("tail", n, fmt.Sprintf(`if [ $SHEAF_PARTITION_INDEX = %d ] && [ $SHEAF_ATTEMPT = 1 ]; then sleep 1000; fi
echo "said by $SHEAF_PARTITION_INDEX"
echo "attempt $SHEAF_ATTEMPT" > $SHEAF_OUTPUT_OUT/$SHEAF_PARTITION_INDEX`, slow), `
  output "out" {
    path = "/out"
  }
`)))
	out := filepath.Join(t.TempDir(), "result")
	f.server.ok("job", "results", "-o", out, "r")
	said := ""
	for _, p := range f.server.partitions("r") {
		// On a machine that is too busy others hang for long enough too.
		if p.State != sheaf.PartitionSucceeded || p.Index == slow && p.Attempt == 1 || p.Failures != 0 || p.Losses != 0 {
			t.Errorf("partition %d is %+v", p.Index, p)
		}
		if got, want := read(t, out, "outputs", "out", strconv.Itoa(p.Index)), fmt.Sprintf("attempt %d\n", p.Attempt); got != want {
			t.Errorf("partition %d was committed by attempt %d, and what is kept was written by %q", p.Index, p.Attempt, got)
		}
		said += fmt.Sprintf("said by %d\n", p.Index)
	}
	if got := read(t, out, "stdout"); got != said {
		t.Errorf("stdout is %q", got)
	}
}
