package e2e

import (
	"fmt"
	"testing"

	"github.com/sheaf-run/agent/sheaf"
)

// TestBackup: a partition that hangs on one node is done by another, and is committed once.
func TestBackup(t *testing.T) {
	f := startFleet(t, 2)
	const n, slow = 12, 5
	f.server.ok("job", "run", "-q", "-id", "r", jobspec(t, shell("tail", n, fmt.Sprintf(`if [ $SHEAF_PARTITION_INDEX = %d ] && [ $SHEAF_ATTEMPT = 1 ]; then sleep 1000; fi
echo "said by $SHEAF_PARTITION_INDEX"
echo "written by $SHEAF_PARTITION_INDEX" > $SHEAF_OUTPUT_OUT/$SHEAF_PARTITION_INDEX`, slow), `
  output "out" {
    path = "/out"
  }
`)))
	f.check("r", n)
	for _, p := range f.server.partitions("r") {
		want := uint32(1)
		if p.Index == slow {
			want = 2
		}
		if p.State != sheaf.PartitionSucceeded || p.Attempt != want || p.Failures != 0 || p.Losses != 0 {
			t.Errorf("partition %d, which should have been committed by attempt %d, is %+v", p.Index, want, p)
		}
	}
}
