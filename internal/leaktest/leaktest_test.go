package leaktest

import (
	"testing"
	"time"
)

func TestLeft(t *testing.T) {
	end := make(chan struct{})
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		<-end
	}()
	if err := left(0); err == nil {
		t.Error("a goroutine that waits for ever was not found")
	}
	time.AfterFunc(2*time.Second, func() { close(end) }) // longer than goleak waits
	if err := left(patience); err != nil {
		t.Errorf("one that ends late was not waited for: %v", err)
	}
	<-gone
}
