package agent

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
)

// TestStagesStopInReverse guards the order of shutdown: a stage goes on until all behind it have returned.
func TestStagesStopInReverse(t *testing.T) {
	for name, broken := range map[string]int{"interrupted": -1, "the first fails": 0, "the last fails": 2} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, stop := context.WithCancel(context.Background())
				defer stop()
				fail := errors.New("broken")
				trigger := make(chan struct{})
				var mu sync.Mutex
				var ended []int
				var stages []func(context.Context) error
				for i := range 3 {
					stages = append(stages, func(ctx context.Context) error {
						var err error
						if i == broken {
							select {
							case <-trigger:
								err = fail
							case <-ctx.Done():
							}
						} else {
							<-ctx.Done()
						}
						mu.Lock()
						defer mu.Unlock()
						ended = append(ended, i)
						return err
					})
				}
				done := make(chan error, 1)
				go func() { done <- runStages(ctx, stages) }()
				synctest.Wait()
				want := []int{2, 1, 0}
				if broken >= 0 {
					close(trigger)
					if broken == 0 {
						want = []int{0, 2, 1}
					}
				} else {
					stop()
				}
				err := <-done
				if (err != nil) != (broken >= 0) {
					t.Errorf("ended with %v", err)
				}
				if !slices.Equal(ended, want) {
					t.Errorf("ended in the order %v, want %v", ended, want)
				}
			})
		})
	}
}
