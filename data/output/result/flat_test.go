package result

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"

	"github.com/sheaf-run/agent/sheaf"
)

// TestWriteIsFlat: ten times the parts of one file take no more memory, neither when it is fetched nor when it is
// there already.
func TestWriteIsFlat(t *testing.T) {
	const small, more = 2_000, 1 << 20 // parts; bytes by which what is live may differ
	live := func(n int) uint64 {
		dir, most, fetched := t.TempDir(), uint64(0), 0
		look := func() {
			var m runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&m)
			most = max(most, m.HeapAlloc)
		}
		for again := range 2 {
			manifest, fill := io.Pipe()
			go func() {
				_, _ = fmt.Fprintf(fill, `{"output":"o","path":"joined","size":%d,"sha256":"","mode":420,"parts":[`, n)
				for i := range n {
					part := sheaf.Part{Partition: i, Attempt: 1, Size: 1, SHA256: sum("x")}.AppendJSON(nil)
					if i > 0 {
						part = append([]byte{','}, part...)
					}
					_, _ = fill.Write(part)
				}
				_, _ = fill.Write([]byte("]}\n"))
				_ = fill.Close()
			}()
			src := Source{Run: "r", Manifest: manifest, Progress: func(Summary) { look() },
				Fetch: func(context.Context, sheaf.File, sheaf.Part, int64) (io.ReadCloser, error) {
					if fetched++; fetched%500 == 0 {
						look()
					}
					return io.NopCloser(strings.NewReader("x")), nil
				}}
			s := write(t, dir, src)
			if s.Files != 1 || s.Kept != int64(again) || fetched != n {
				t.Fatalf("%+v, %d parts were fetched", s, fetched)
			}
		}
		return most
	}
	if few, many := live(small), live(10*small); many > few+more {
		t.Errorf("%d bytes are live with %d parts, %d with ten times as many", few, small, many)
	}
}
