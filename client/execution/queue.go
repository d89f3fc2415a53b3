package execution

// span is count partitions from first on, all at the same attempt and
// generation. It is the only form in which queued executions are kept.
type span struct {
	first, count        uint32
	attempt, generation uint32
}

// end is the partition behind the last.
func (s span) end() uint32 { return s.first + s.count }

// queue is the executions of a run that are assigned and not begun, in the
// order in which they came. Its size is the number of its spans.
type queue struct {
	spans []span // spans[head:] are live; none is empty
	head  int
	count int // partitions in all spans
}

// push appends s; what goes on where the last span ends becomes part of it.
func (q *queue) push(s span) {
	if s.count == 0 {
		return
	}
	q.count += int(s.count)
	if n := len(q.spans); n > q.head {
		last := &q.spans[n-1]
		if last.end() == s.first && last.attempt == s.attempt && last.generation == s.generation {
			last.count += s.count
			return
		}
	}
	if q.head == len(q.spans) {
		q.spans, q.head = q.spans[:0], 0
	} else if q.head > 32 && q.head > len(q.spans)/2 {
		n := copy(q.spans, q.spans[q.head:])
		q.spans, q.head = q.spans[:n], 0
	}
	q.spans = append(q.spans, s)
}

// front is the first partition of a queue that is not empty.
func (q *queue) front() uint32 { return q.spans[q.head].first }

// pop takes up to most partitions that follow each other from the front. The
// count of what it returns is 0 when the queue is empty.
func (q *queue) pop(most uint32) span {
	if q.head == len(q.spans) || most == 0 {
		return span{}
	}
	front := &q.spans[q.head]
	out := *front
	out.count = min(out.count, most)
	front.first += out.count
	front.count -= out.count
	q.count -= int(out.count)
	if front.count == 0 {
		q.head++
		if q.head == len(q.spans) {
			q.spans, q.head = q.spans[:0], 0
		}
	}
	return out
}

// unpush takes up to most partitions from the back: what came last, and would
// have begun last.
func (q *queue) unpush(most uint32) span {
	n := len(q.spans)
	if q.head == n || most == 0 {
		return span{}
	}
	back := &q.spans[n-1]
	out := *back
	out.count = min(out.count, most)
	out.first = back.end() - out.count
	back.count -= out.count
	q.count -= int(out.count)
	if back.count == 0 {
		q.spans = q.spans[:n-1]
		if q.head == n-1 {
			q.spans, q.head = q.spans[:0], 0
		}
	}
	return out
}

// remove drops what is both in the queue and in s, at the same attempt, and
// says how many partitions that were.
func (q *queue) remove(s span) int {
	removed := 0
	for i := q.head; i < len(q.spans); i++ {
		x := q.spans[i]
		lo, hi := max(x.first, s.first), min(x.end(), s.end())
		if lo >= hi || x.attempt != s.attempt {
			continue
		}
		removed += int(hi - lo)
		left, right := x, x
		left.count = lo - x.first
		right.first, right.count = hi, x.end()-hi
		switch {
		case left.count > 0 && right.count > 0:
			q.spans[i] = left
			q.spans = append(q.spans, span{})
			copy(q.spans[i+2:], q.spans[i+1:])
			q.spans[i+1] = right
			i++
		case left.count > 0:
			q.spans[i] = left
		case right.count > 0:
			q.spans[i] = right
		default:
			q.spans = append(q.spans[:i], q.spans[i+1:]...)
			i--
		}
	}
	q.count -= removed
	if q.head == len(q.spans) {
		q.spans, q.head = q.spans[:0], 0
	}
	return removed
}
