package e2e

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestShardLargerThanAChunk guards a shard whose list of files spans several
// chunks of the manifest, in the run's last partition too.
func TestShardLargerThanAChunk(t *testing.T) {
	const files = 12_000
	dir := t.TempDir()
	for i := range files {
		name := fmt.Sprintf("%x.txt", sha256.Sum256([]byte(fmt.Sprint(i))))
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	a := startAgent(t)
	out := filepath.Join(t.TempDir(), "result")
	a.ok("job", "run", "-input", dir+":/in", "-glob", "/*.txt", "-batch-size", fmt.Sprint(files*2/3), "-o", out, "-exec", "--", "sh", "-c", "wc -l < $SHEAF_SHARD_FILE; ls /in | wc -l")
	if got, want := strings.Fields(read(t, out, "stdout")), fmt.Sprint([]int{files * 2 / 3, files * 2 / 3, files / 3, files / 3}); fmt.Sprint(got) != want {
		t.Errorf("the tasks saw %v, want %s", got, want)
	}
}
