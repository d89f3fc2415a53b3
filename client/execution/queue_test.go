package execution

import (
	"testing"

	"pgregory.net/rapid"
)

// TestQueueAgainstList drives the queue and a plain list of partitions with the
// same operations: both must hold the same partitions in the same order.
func TestQueueAgainstList(t *testing.T) {
	type item struct{ partition, attempt uint32 }
	rapid.Check(t, func(t *rapid.T) {
		var q queue
		var list []item
		next := uint32(0)
		t.Repeat(map[string]func(*rapid.T){
			"push": func(t *rapid.T) {
				next += rapid.Uint32Range(0, 2).Draw(t, "gap")
				n := rapid.Uint32Range(0, 9).Draw(t, "count")
				a := rapid.Uint32Range(1, 2).Draw(t, "attempt")
				q.push(span{first: next, count: n, attempt: a})
				for i := range n {
					list = append(list, item{next + i, a})
				}
				next += n
			},
			"pop": func(t *rapid.T) {
				s := q.pop(rapid.Uint32Range(0, 4).Draw(t, "most"))
				for i := range s.count {
					if list[0] != (item{s.first + i, s.attempt}) {
						t.Fatalf("popped %d.%d, want %v", s.first+i, s.attempt, list[0])
					}
					list = list[1:]
				}
			},
			"unpush": func(t *rapid.T) {
				s := q.unpush(rapid.Uint32Range(0, 4).Draw(t, "most"))
				for i := s.count; i > 0; i-- {
					last := list[len(list)-1]
					if last != (item{s.first + i - 1, s.attempt}) {
						t.Fatalf("took back %d.%d, want %v", s.first+i-1, s.attempt, last)
					}
					list = list[:len(list)-1]
				}
			},
			"remove": func(t *rapid.T) {
				s := span{first: rapid.Uint32Range(0, next).Draw(t, "first"), count: rapid.Uint32Range(0, 20).Draw(t, "count"), attempt: rapid.Uint32Range(1, 2).Draw(t, "attempt")}
				var keep []item
				for _, x := range list {
					if x.attempt != s.attempt || x.partition < s.first || x.partition >= s.end() {
						keep = append(keep, x)
					}
				}
				if got, want := q.remove(s), len(list)-len(keep); got != want {
					t.Fatalf("removed %d, want %d", got, want)
				}
				list = keep
			},
			"": func(t *rapid.T) {
				if q.count != len(list) {
					t.Fatalf("queue counts %d, list has %d", q.count, len(list))
				}
				i := 0
				for _, s := range q.spans[q.head:] {
					if s.count == 0 {
						t.Fatal("empty span in the queue")
					}
					for p := range s.count {
						if list[i] != (item{s.first + p, s.attempt}) {
							t.Fatalf("place %d holds %d.%d, want %v", i, s.first+p, s.attempt, list[i])
						}
						i++
					}
				}
			},
		})
	})
}

// TestQueueCostsRanges guards the promise that a million partitions assigned in
// order cost one span.
func TestQueueCostsRanges(t *testing.T) {
	var q queue
	for i := uint32(0); i < 1_000_000; i += 1000 {
		q.push(span{first: i, count: 1000, attempt: 1})
	}
	if len(q.spans) != 1 || q.count != 1_000_000 {
		t.Fatalf("%d spans hold %d partitions, want 1 with 1000000", len(q.spans), q.count)
	}
	for range 400_000 {
		q.pop(1)
	}
	if len(q.spans) != 1 || q.count != 600_000 {
		t.Fatalf("%d spans hold %d partitions after taking 400000", len(q.spans), q.count)
	}
}
