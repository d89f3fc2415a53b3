package server_test

import (
	"testing"
)

// BenchmarkStart is from nothing to a server that takes work, on disk, alternately
// founding a cluster and starting again on its directory.
func BenchmarkStart(b *testing.B) {
	b.Run("founding", func(b *testing.B) {
		for b.Loop() {
			startHost(b, tempDir(b), "").stop()
		}
	})
	b.Run("again", func(b *testing.B) {
		dir := tempDir(b)
		startHost(b, dir, "").stop()
		for b.Loop() {
			startHost(b, dir, "").stop()
		}
	})
}
